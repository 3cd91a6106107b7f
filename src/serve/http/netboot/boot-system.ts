import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'

/** The newest system in the folder, as `imprint netboot build` names it there: docs/deploy.md. */
export const CURRENT = 'current'
/** Parts of it, before the name of the build. */
const parts = ['kernel', 'initramfs'] as const
export type BootPart = (typeof parts)[number]

const BUILD = /^[0-9a-f]{16}$/

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
  const [part = '', build = ''] = name.split('-')
  if (!parts.some((one) => one === part) || !BUILD.test(build)) return undefined
  const file = await open(join(folder, `${part}-${build}`), 'r').catch(() => undefined)
  if (!file) return undefined
  const { size } = await file.stat()
  return { bytes: size, read: () => file.createReadStream({ start: 0 }), close: () => file.close() }
}
