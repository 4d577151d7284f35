import { describe, expect, it } from 'vitest'
import { JobLocks } from './lock.js'

describe('JobLocks', () => {
  it('lets one operation in, and says which', () => {
    const locks = new JobLocks()
    const held = locks.take('train', 'dump')
    locks.take('other', 'dump')
    expect(() => locks.take('train', 'delete')).toThrow(
      expect.objectContaining({ code: 'JOB_BUSY', message: 'job train is busy: dump is running' }),
    )
    held[Symbol.dispose]()
    const again = locks.take('train', 'delete')
    held[Symbol.dispose]()
    expect(() => locks.take('train', 'kill')).toThrow(/delete is running/)
    again[Symbol.dispose]()
    locks.take('train', 'kill')
  })

  it('locks what is no job', () => {
    const locks = new JobLocks()
    locks.take('PID 7', 'freeze')
    expect(() => locks.take('PID 7', 'dump')).toThrow('PID 7 is busy: freeze is running')
  })
})
