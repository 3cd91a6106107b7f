import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'

/** What a file holds, by its bytes alone: every format that is there, not only the first. */
export interface Recognition {
  readonly fileBytes: number
  readonly found: readonly Found[]
}

export interface Found {
  /** `qcow2`, `vmdk`, `mbr`, `ext`, `gzip` … */
  readonly name: string
  /** disk: a disk image format; content: what a raw disk may begin with; wrapper: compression or an archive around something. */
  readonly kind: 'disk' | 'content' | 'wrapper'
  /** The `disk_format` that an image with these bytes must declare; null where Glance has no name for it. */
  readonly diskFormat: string | null
  /** Bytes from the start of the file to the signature. */
  readonly offset: number
  /** Size of the disk inside, where the header says it; null where it is not known. */
  readonly virtualBytes: number | null
  /** The raw disk lies in the file as it is: other formats that are seen are its content. */
  readonly plain: boolean
  /** A sentence for people, or null. */
  readonly note: string | null
  /** Why such a file cannot be accepted whatever was declared, or null. */
  readonly refusal: ServiceError | null
}

/** How one format is known. */
export interface Signature {
  readonly name: string
  readonly kind: Found['kind']
  readonly diskFormat: string | null
  /** @returns where the signature is, or undefined. Looks at the first and last bytes only; never throws */
  find(look: Look): number | undefined
  /** Reads more of the header. @throws ServiceError to refuse the file */
  inspect?(look: Look, offset: number): Promise<Inspected>
}
export interface Inspected {
  readonly virtualBytes?: number
  readonly plain?: boolean
  readonly note?: string
}

const HEAD_BYTES = 72 * 1024 // the farthest signature is that of Btrfs, at 64 KiB + 64
const TAIL_BYTES = 1024 // a VHD footer has 512, a VMDK footer 1024

/** The parts of a file that signatures are in, read once; anything else is read when asked for. */
export class Look {
  readonly file: BlockSource
  readonly fileBytes: number
  readonly head: Uint8Array
  readonly tail: Uint8Array

  private constructor(file: BlockSource, head: Uint8Array, tail: Uint8Array) {
    this.file = file
    this.fileBytes = file.size
    this.head = head
    this.tail = tail
  }

  static async at(file: BlockSource): Promise<Look> {
    const tailBytes = Math.min(TAIL_BYTES, file.size)
    const [head, tail] = await Promise.all([
      file.read(0, Math.min(HEAD_BYTES, file.size)),
      file.read(file.size - tailBytes, tailBytes),
    ])
    return new Look(file, head, tail)
  }

  /** Whether the file has these bytes at `offset`; text stands for Latin-1. */
  has(offset: number, signature: string | readonly number[]): boolean {
    return startsWith(this.head.subarray(offset), signature)
  }
  /** The same, counted back from the end of the file. */
  endsWith(fromEnd: number, signature: string | readonly number[]): boolean {
    return fromEnd <= this.tail.length && startsWith(this.tail.subarray(this.tail.length - fromEnd), signature)
  }
  byte(offset: number): number {
    return this.head[offset] ?? 0
  }
  u16le(offset: number): number {
    return this.byte(offset) | (this.byte(offset + 1) << 8)
  }
  u32le(offset: number): number {
    return (this.u16le(offset) | (this.u16le(offset + 2) << 16)) >>> 0
  }
  u32be(offset: number): number {
    return (
      ((this.byte(offset) << 24) | (this.byte(offset + 1) << 16) | (this.byte(offset + 2) << 8) | this.byte(offset + 3)) >>> 0
    )
  }
  latin1(offset: number, length: number): string {
    return Buffer.from(this.head.subarray(offset, offset + length)).toString('latin1')
  }

  /** @throws ServiceError `invalid-image` when the file ends before that */
  async read(what: string, offset: number, length: number): Promise<Uint8Array> {
    const inside = Number.isSafeInteger(offset) && offset >= 0 && length <= this.fileBytes - offset
    if (!inside) {
      throw new ServiceError('invalid-image', `${what} lies beyond the end of the file; is the upload complete?`, {
        reason: 'truncated',
        fileBytes: this.fileBytes,
      })
    }
    return this.file.read(offset, length)
  }
}

function startsWith(bytes: Uint8Array, signature: string | readonly number[]): boolean {
  if (bytes.length < signature.length) return false
  for (let index = 0; index < signature.length; index += 1) {
    const wanted = typeof signature === 'string' ? signature.charCodeAt(index) : signature[index]
    if (bytes[index] !== wanted) return false
  }
  return true
}

/** A signature that is nothing but bytes at a place. */
export const plainSignature = (
  name: string,
  kind: Found['kind'],
  offset: number,
  ...anyOf: readonly (string | readonly number[])[]
): Signature => ({
  name,
  kind,
  diskFormat: kind === 'content' ? 'raw' : null,
  find: (look) => (anyOf.some((signature) => look.has(offset, signature)) ? offset : undefined),
})

export const refusal = (
  format: string,
  reason: string,
  problem: string,
  details: Record<string, number | string> = {},
): ServiceError =>
  new ServiceError(
    reason === 'encrypted' || reason === 'unsupported' ? 'unsupported' : 'invalid-image',
    `${format}: ${problem}`,
    {
      format,
      reason,
      ...details,
    },
  )
