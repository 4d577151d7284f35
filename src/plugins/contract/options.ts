/**
 * One option, said once: a zod schema whose `.meta()` carries what the command line needs.
 * schema → JSON schema → flag and help (kebab-case) → checked by the CLI → google.protobuf.Struct → checked again by the daemon → typed argument.
 */
import { z } from 'zod'

export interface OptionMeta {
  readonly description: string
  /** Taken as an argument, in the order of the schema; the last may be an array (`name...`). */
  readonly positional?: boolean
  /** One letter. */
  readonly short?: string
  /** Name shown for the value in help: `PATH`, `N`. */
  readonly value?: string
  /** Of one that can be repeated: a comma is part of a value. */
  readonly verbatim?: boolean
  /** A program: the client looks it up in its PATH. */
  readonly executable?: boolean
  /** A path: the client makes it absolute. */
  readonly path?: boolean
  /** A variable of the client's environment that says it where the command line does not. */
  readonly variable?: string
  /** What counts where neither says it, in words, of an option without a default. */
  readonly otherwise?: string
  /** For examples, of an argument that has to be said. */
  readonly sample?: string
  /** Accepted, not shown in help. */
  readonly hidden?: boolean
}

export type OptionSchema = z.ZodObject<Record<string, z.ZodType>>
/** The options of each verb that takes any. */
export type OptionSchemas = Readonly<Partial<Record<string, OptionSchema>>>
/** The same as data: a JSON schema that carries the `.meta()` of each option. */
export type OptionsDescription = Readonly<Record<string, unknown>>
export type ParsedOptions = Readonly<Record<string, unknown>>

/** The exact options of verb `V` when the schemas are known, `ParsedOptions` when the plugin is any plugin. */
export type OptionsOf<O extends OptionSchemas, V extends string> = string extends keyof O
  ? ParsedOptions
  : V extends keyof O
    ? O[V] extends z.ZodType
      ? z.output<O[V]>
      : Record<string, never>
    : Record<string, never>

export const NoOptions = z.strictObject({})
