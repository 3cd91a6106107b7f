import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'

/** The newest system in the folder, as `imprint netboot build` names it there: docs/deploy.md. */
export const CURRENT = 'current'
const BUILD = /^[0-9a-f]{16}$/
const PART = /^(kernel|initramfs)-[0-9a-f]{16}$/

/** @returns the name of the build; undefined: none was made */
export async function currentBuild(folder: string): Promise<string | undefined> {
  const name = (await readFile(join(folder, CURRENT), 'latin1').catch(() => '')).trim()
  return BUILD.test(name) ? name : undefined
}

/** @param name `kernel-…` or `initramfs-…`, from an address. @returns undefined where there is no such part */
export async function openPart(
  folder: string,
  name: string,
): Promise<{ readonly bytes: number; read(): Readable; close(): Promise<void> } | undefined> {
  if (!PART.test(name)) return undefined
  const file = await open(join(folder, name), 'r').catch(() => undefined)
  if (!file) return undefined
  const { size } = await file.stat()
  return { bytes: size, read: () => file.createReadStream({ start: 0 }), close: () => file.close() }
}
