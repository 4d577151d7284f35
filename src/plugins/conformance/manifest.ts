/** What can be said of a plugin by its manifest alone: part of the conformance suite, and asked before a plugin is installed. */
import { z } from 'zod'
import type { OptionMeta } from '../contract/options.js'
import { PLUGIN_NAME, type RuntimeManifest } from '../contract/runtime.js'

/** What they take must be said, if only that it is nothing. */
const WITH_OPTIONS = ['run', 'resolve', 'dump', 'restore'] as const

function* optionProblems(manifest: RuntimeManifest): Generator<string> {
  for (const [verb, schema] of Object.entries(manifest.options)) {
    if (schema === undefined) continue
    try {
      z.toJSONSchema(schema, { io: 'input' })
    } catch (thrown) {
      yield `its options of ${verb} cannot be written as a JSON schema: ${(thrown as Error).message}`
      continue
    }
    for (const [name, option] of Object.entries(schema.shape))
      if (!(option.meta() as OptionMeta | undefined)?.description) yield `its option ${name} of ${verb} has no description`
    if (schema.safeParse({ noSuchOption: 1 }).success) yield `its options of ${verb} take any name: make them a z.strictObject`
  }
}

function* problems(manifest: RuntimeManifest): Generator<string> {
  if (!Object.isFrozen(manifest)) yield 'its manifest is not frozen: make it by defineRuntime'
  if (!PLUGIN_NAME.test(manifest.name)) yield `its name ${JSON.stringify(manifest.name)} is not of a-z, 0-9 and -`
  if (!manifest.summary) yield 'its summary is empty'
  if (Object.keys(manifest.verbs).length === 0) yield 'it claims no verb'
  for (const verb of WITH_OPTIONS)
    if (manifest.verbs[verb] && !manifest.options[verb]) yield `it claims ${verb} and does not say its options`
  yield* optionProblems(manifest)
}

/** Empty: there is nothing to say against it. */
export const manifestProblems = (manifest: RuntimeManifest): readonly string[] => [...problems(manifest)]
