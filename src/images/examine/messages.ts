import type { ErrorCode, ErrorDetails } from '../../base/errors.ts'
import type { Anatomy } from '../../disk/guest/anatomy.ts'
import type { Examined, ExaminedAs } from './examination.ts'

/** What is to be done with the bytes of an image. */
export type Task =
  /** Is it what its owner says, and harmless? */
  | { readonly kind: 'examine'; readonly declared: string; readonly as: ExaminedAs }
  /** What does the disk in it hold? */
  | { readonly kind: 'inspect'; readonly format: string }

/** From the service to the worker. `job` numbers tell late messages of an ended examination from those of the next. */
export type ToWorker =
  | { readonly kind: 'task'; readonly job: number; readonly fileBytes: number; readonly task: Task }
  | { readonly kind: 'bytes'; readonly job: number; readonly id: number; readonly bytes: Uint8Array }

/** From the worker to the service. A read that fails is never answered: the service ends the worker instead. */
export type FromWorker =
  | { readonly kind: 'read'; readonly job: number; readonly id: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'examined'; readonly job: number; readonly result: Examined }
  | { readonly kind: 'inspected'; readonly job: number; readonly result: Anatomy }
  | {
      readonly kind: 'refused'
      readonly job: number
      readonly code: ErrorCode
      readonly message: string
      readonly details: ErrorDetails
    }
  | { readonly kind: 'failed'; readonly job: number; readonly message: string }
