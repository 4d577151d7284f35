/**
 * `cedana/plugin`: the contract between cedana and a plugin, all that a plugin imports. See docs/plugins.md.
 *
 * By semantic versioning (`CONTRACT_VERSION`); a plugin says in its package.json, as `cedana.contract`, for which range of versions it was made.
 */
export { SUPPORT, type Requirement, type Support } from './capability.js'
export { CedanaError, ERRORS, type ErrorCode, type ErrorContext } from './errors.js'
export type { ExecResult, Host, Log, ProcessBrief, Wakeups } from './host.js'
export * from './job.js'
export * from './kit.js'
export { NoOptions, type OptionMeta, type OptionSchema, type OptionSchemas, type OptionsOf, type ParsedOptions } from './options.js'
export type * from './plan.js'
export { defineRuntime, FEATURES, PLUGIN_NAME, runcRestoreFlags, VERBS } from './runtime.js'
export type * from './runtime.js'
export { CONTRACT_VERSION, satisfies } from './version.js'
/** The zod that options are written with. */
export { z } from 'zod'
