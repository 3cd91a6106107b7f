import { ServiceError } from '../../../../base/errors.ts'

export type Refusal = 'malformed' | 'truncated' | 'damaged' | 'unknown-feature' | 'missing-devices'
const UNSUPPORTED: readonly Refusal[] = ['unknown-feature', 'missing-devices']

export const refuse = (reason: Refusal, problem: string, details: Record<string, number | string> = {}): ServiceError =>
  new ServiceError(UNSUPPORTED.includes(reason) ? 'unsupported' : 'invalid-image', `LVM2: ${problem}`, { reason, ...details })
