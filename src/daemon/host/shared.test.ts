import { expect, test } from 'vitest'
import { shared } from './shared.js'

/** Work that ends when it is told to, and answers how many times it has begun. */
function slow() {
  let begun = 0
  const ends: (() => void)[] = []
  const ask = shared(() => {
    const mine = ++begun
    return new Promise<number>((resolve, reject) => {
      ends.push(() => (mine === 2 ? reject(new Error('second')) : resolve(mine)))
    })
  })
  const end = async (): Promise<void> => {
    ends.shift()?.()
    await new Promise(setImmediate)
  }
  return { ask, end, count: () => begun }
}

test('an answer was begun after it was asked for; those who wait share one', async () => {
  const { ask, end, count } = slow()
  const first = ask()
  const [second, third] = [ask(), ask()]
  expect(count()).toBe(1)
  await end()
  expect(await first).toBe(1)
  expect(count()).toBe(2)
  const fourth = ask()
  void second.catch(() => undefined)
  void third.catch(() => undefined)
  await end()
  await expect(second).rejects.toThrow('second')
  await expect(third).rejects.toThrow('second')
  expect(count()).toBe(3)
  await end()
  expect(await fourth).toBe(3)
  const fifth = ask()
  expect(count()).toBe(4)
  await end()
  expect(await fifth).toBe(4)
})
