import type { ErrorCode, ErrorDetails } from '../../base/errors.ts'
import type { Examined, ExaminedAs } from './examination.ts'

/** From the service to the worker. `job` numbers tell late messages of an ended examination from those of the next. */
export type ToWorker =
  | {
      readonly kind: 'examine'
      readonly job: number
      readonly fileBytes: number
      readonly declared: string
      readonly as: ExaminedAs
    }
  | { readonly kind: 'bytes'; readonly job: number; readonly id: number; readonly bytes: Uint8Array }

/** From the worker to the service. A read that fails is never answered: the service ends the worker instead. */
export type FromWorker =
  | { readonly kind: 'read'; readonly job: number; readonly id: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'examined'; readonly job: number; readonly result: Examined }
  | {
      readonly kind: 'refused'
      readonly job: number
      readonly code: ErrorCode
      readonly message: string
      readonly details: ErrorDetails
    }
  | { readonly kind: 'failed'; readonly job: number; readonly message: string }
