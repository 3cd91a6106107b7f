import { MAX_DISKS } from '../machine-spec.ts'
import { parsedShape } from '../memory-shape.ts'

/** What a machine that goes on elsewhere was made with, and must be again, though nobody asks for it. */
export interface SavedChoice {
  /** An update of QEMU may have given the short names to newer ones. */
  readonly machineType: string | undefined
  readonly hasSlots: boolean
  /** Of its disks: others may have come and gone. */
  readonly slots: readonly number[]
}

/** @param shape as `shapeOf` made it. @throws ServiceError `invalid-request` for what is no shape */
export function savedChoice(shape: string): SavedChoice {
  const { machineType, hasSlots, slots } = parsedShape(shape)
  return {
    machineType: typeof machineType === 'string' ? machineType : undefined,
    hasSlots: hasSlots === true,
    slots: Array.isArray(slots) && areSlots(slots) ? slots : [],
  }
}

const areSlots = (slots: readonly unknown[]): slots is readonly number[] =>
  new Set(slots).size === slots.length &&
  slots.every((slot) => Number.isInteger(slot) && Number(slot) >= 0 && Number(slot) < MAX_DISKS)
