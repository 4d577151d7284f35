import { expect, test } from 'vitest'
import { z } from 'zod'
import { CliCommand, type App } from './command.js'
import { addFields, check, collect, fieldsOf } from './flags.js'

const schema = z.strictObject({
  id: z.string().min(1).meta({ positional: true, description: 'container id' }),
  rest: z.array(z.string()).default([]).meta({ positional: true, description: 'more' }),
  manageCgroups: z.enum(['ignore', 'soft']).default('soft').meta({ description: 'cgroups' }),
  streams: z.int().min(1).max(64).optional().meta({ short: 's', description: 'shards' }),
  gpus: z.array(z.int()).default([]).meta({ description: 'devices' }),
  pivot: z.boolean().default(true).meta({ description: 'do not pivot' }),
  rootless: z.boolean().default(false).meta({ description: 'rootless' }),
  noKeyring: z.boolean().default(false).meta({ description: 'no keyring' }),
})

async function parse(argv: string[]) {
  const command = new CliCommand('x', { world: { stdout: process.stdout } } as unknown as App)
  const fields = await fieldsOf(schema)
  addFields(command, fields)
  command.action(() => {})
  await command.parseAsync(argv, { from: 'user' })
  return { command, given: collect(fields, command.args, command.opts()) }
}

test('schema to flags and arguments, with defaults in the help', async () => {
  const { command } = await parse(['a'])
  const help = command.helpInformation()
  expect(help).toContain('x [options] <ID> [REST...]')
  expect(help).toMatch(/--manage-cgroups <MANAGE_CGROUPS> +cgroups \(default: "soft"\) \(choices/)
  expect(help).toMatch(/-s, --streams <N> +shards/)
  expect(help).toContain('--no-pivot')
})

test('and back, by the names of the schema', async () => {
  const { given } = await parse([
    'a',
    'b',
    '--streams=4',
    'c',
    '--gpus',
    '0,1',
    '--gpus',
    '3',
    '--no-pivot',
    '--rootless',
    '--no-keyring',
    '--manage-cgroups',
    'ignore',
  ])
  const switches = { pivot: false, rootless: true, noKeyring: true }
  expect(given).toEqual({ id: 'a', rest: ['b', 'c'], streams: 4, gpus: [0, 1, 3], manageCgroups: 'ignore', ...switches })
  expect(check(schema, given)).toEqual(given)
})

test('what was not said is left to the schema', async () => {
  expect((await parse(['a'])).given).toEqual({ id: 'a', rest: [], pivot: true })
})

test('a mistake names the flag and the value', () => {
  expect(() => check(schema, { id: 'a', streams: 99 })).toThrow(/^streams: .*: 99$/)
  expect(() => check(schema, { id: '' })).toThrow(/^id: /)
})
