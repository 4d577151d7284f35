/** What a plugin can do and what it needs: data for the feature matrix, for `cedana check`, and for deciding which tests run. */

export const SUPPORT = ['stable', 'experimental'] as const
export type Support = (typeof SUPPORT)[number]

/** A need of the host, checked by `cedana check` and before use. `version`: semver range such as `>=1.1`. */
export type Requirement =
  | { readonly binary: string; readonly version?: string }
  | { readonly criu: string }
  | { readonly kernel: string }
  | { readonly capability: string }
  | { readonly root: true }
