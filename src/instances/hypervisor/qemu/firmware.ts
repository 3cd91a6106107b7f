import { access, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isObject, objectOf } from './json-lines.ts'

/**
 * UEFI firmware as distributions describe it: one JSON file each, read in the order of their names, the ones of the administrator
 * before those of the vendor. Source: QEMU docs/interop/firmware.json.
 */
export interface Firmware {
  /** Read-only code, and the variables that a machine starts with: a copy of its own. */
  readonly codePath: string
  readonly variablesPath: string
  readonly architecture: string
  /** As in the description: `pc-q35-*`. */
  readonly machines: readonly string[]
  /** Starts signed systems only, its keys being enrolled. */
  readonly secureBoot: boolean
  readonly needsSmm: boolean
}

const FOLDERS = ['/etc/qemu/firmware', '/usr/share/qemu/firmware']

/** @param folders later ones lose to earlier ones that have a file of the same name */
export async function findFirmwares(folders: readonly string[] = FOLDERS): Promise<readonly Firmware[]> {
  const paths = new Map<string, string>()
  for (const folder of folders) {
    for (const name of await readdir(folder).catch(() => [])) {
      if (name.endsWith('.json') && !paths.has(name)) paths.set(name, join(folder, name))
    }
  }
  const found: Firmware[] = []
  for (const [, path] of [...paths].sort(([a], [b]) => (a < b ? -1 : 1))) {
    for (const firmware of described(await readFile(path, 'utf8').catch(() => ''))) {
      if ((await isThere(firmware.codePath)) && (await isThere(firmware.variablesPath))) found.push(firmware)
    }
  }
  return found
}

/** The first that fits. @param machineType its full name: `pc-q35-7.2` */
export const firmwareFor = (
  firmwares: readonly Firmware[],
  wanted: { readonly architecture: string; readonly machineType: string; readonly secureBoot: boolean },
): Firmware | undefined =>
  firmwares.find(
    ({ architecture, machines, secureBoot, needsSmm }) =>
      architecture === wanted.architecture &&
      secureBoot === wanted.secureBoot &&
      (wanted.secureBoot || !needsSmm) &&
      machines.some((pattern) => matches(pattern, wanted.machineType)),
  )

/** Only what lies in flash and brings a template of its variables; an empty file, or one of another kind, describes nothing. */
function described(text: string): readonly Firmware[] {
  const { mapping, targets, features } = objectOf(text) ?? {}
  if (!isObject(mapping) || mapping.device !== 'flash' || !Array.isArray(targets) || !Array.isArray(features)) return []
  const [code, variables] = [rawFile(mapping.executable), rawFile(mapping['nvram-template'])]
  if (!code || !variables) return []
  const has = (feature: string) => features.includes(feature)
  return targets.filter(isObject).flatMap(({ architecture, machines }) => {
    if (typeof architecture !== 'string' || !Array.isArray(machines)) return []
    return {
      codePath: code,
      variablesPath: variables,
      architecture,
      machines: machines.filter((machine) => typeof machine === 'string'),
      secureBoot: has('secure-boot') && has('enrolled-keys'),
      needsSmm: has('requires-smm'),
    }
  })
}

const rawFile = (file: unknown): string | undefined =>
  isObject(file) && file.format === 'raw' && typeof file.filename === 'string' ? file.filename : undefined

const matches = (pattern: string, name: string): boolean =>
  pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
