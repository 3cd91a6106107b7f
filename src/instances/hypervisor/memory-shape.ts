import { ServiceError } from '../../base/errors.ts'

/** What of a machine must be the same where its memory goes on: plain values, in lists and objects, under names that people understand. */
export type Shape = Readonly<Record<string, unknown>>

const FORMAT = 1
const MAX_CHARACTERS = 256 * 1024 // 16 disks and 8 network cards take a few KiB
const MAX_DEPTH = 8
const MAX_TOLD = 5
const ABSENT = 'nothing'

export const shapeText = (shape: Shape): string => JSON.stringify({ format: FORMAT, ...shape })

/** @throws ServiceError `invalid-request`, naming what differs, and what it was and is */
export function assertSameShape(saved: string, here: Shape): void {
  const was = leavesOf(parsedShape(saved))
  const is = leavesOf({ format: FORMAT, ...here })
  const differing = [...new Set([...is.keys(), ...was.keys()])].filter((name) => was.get(name) !== is.get(name))
  if (differing.length === 0) return
  const told = differing
    .slice(0, MAX_TOLD)
    .map((name) => `${name} was ${was.get(name) ?? ABSENT} and is ${is.get(name) ?? ABSENT}`)
  const more = differing.length > MAX_TOLD ? `; and ${differing.length - MAX_TOLD} more` : ''
  throw new ServiceError(
    'invalid-request',
    `The memory does not fit this machine: ${told.join('; ')}${more}. Make the machine as it was, or start it without its memory.`,
    { differing: differing.length },
  )
}

/** @throws ServiceError `invalid-request` for what no adapter wrote */
export function parsedShape(saved: string): Shape {
  try {
    const shape: unknown = saved.length <= MAX_CHARACTERS ? JSON.parse(saved) : null
    if (typeof shape === 'object' && shape !== null && !Array.isArray(shape)) return shape as Shape
  } catch {}
  throw new ServiceError('invalid-request', 'What the memory was saved with cannot be read; start the machine without it.')
}

/** `devices.3.driver` → `"virtio-blk-pci"` */
function leavesOf(shape: Shape): ReadonlyMap<string, string> {
  const leaves = new Map<string, string>()
  const visit = (value: unknown, path: readonly string[]) => {
    if (typeof value === 'object' && value !== null && path.length < MAX_DEPTH) {
      for (const [name, inner] of Object.entries(value)) visit(inner, [...path, name])
    } else if (value !== undefined) leaves.set(path.join('.'), JSON.stringify(value))
  }
  visit(shape, [])
  return leaves
}
