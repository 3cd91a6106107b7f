import type { ErrorCode, ErrorDetails } from '../../../base/errors.ts'

/** What the thread that unpacks is told at its start. */
export interface ThreadSettings {
  readonly compression: 'bzip2' | 'xz'
  /** One number in shared memory, raised with each message to the thread: it sleeps on it. */
  readonly events: Int32Array
}
export type ThreadInput =
  | { readonly kind: 'input'; readonly bytes: Uint8Array | null } // null: the end
  | { readonly kind: 'taken' } // one piece was
export type ThreadMessage =
  | { readonly kind: 'hungry' } // one buffer of input is wanted
  | { readonly kind: 'piece'; readonly bytes: Uint8Array }
  | { readonly kind: 'zeros'; readonly bytes: number } // a piece too
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string; readonly details: ErrorDetails }

/** Unpacked and not taken yet, of 1 MiB at most each. */
export const MAX_PIECES = 4
