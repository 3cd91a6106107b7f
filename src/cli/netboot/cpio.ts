import { readFile } from 'node:fs/promises'

/** An archive for the kernel's initramfs: "newc", as in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. */
export interface CpioEntry {
  readonly path: string
  readonly mode: number
  /** Of a file, or where a symbolic link leads; `file`: what is in that file here. */
  readonly content: Uint8Array | string | { readonly file: string }
}

/** Holds one file at a time. Folders stand before what is in them. */
export async function* cpioParts(entries: Iterable<CpioEntry>): AsyncGenerator<Buffer> {
  let inode = 0
  for (const { path, mode, content } of withTrailer(entries)) {
    inode += 1
    const isHere = typeof content === 'object' && 'file' in content
    const body = isHere ? await readFile(content.file) : Buffer.from(content)
    const name = Buffer.from(`${path}\0`)
    const fields = [inode, mode, 0, 0, 1, 0, body.length, 0, 0, 0, 0, name.length, 0]
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`)
    yield Buffer.concat([header, name, pad(header.length + name.length)])
    yield body
    yield pad(body.length)
  }
}

function* withTrailer(entries: Iterable<CpioEntry>): Generator<CpioEntry> {
  yield* entries
  yield { path: 'TRAILER!!!', mode: 0, content: '' }
}

const pad = (bytes: number): Buffer => Buffer.alloc((4 - (bytes % 4)) % 4)
