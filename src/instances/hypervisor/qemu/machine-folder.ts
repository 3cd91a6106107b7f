import { constants } from 'node:fs'
import { chmod, chown, type FileHandle, lchown, lstat, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { openFileSource } from '../../../disk/block/file-source.ts'
import { memorySource } from '../../../disk/block/memory-source.ts'
import { openImage, wrapDisk } from '../../../disk/formats/index.ts'
import { type SeedFiles, seedDisc } from '../../seed/seed-disc.ts'
import type { MachineDisk, MachineSpec } from '../hypervisor.ts'
import type { MigrationTarget } from '../machine-migration.ts'
import { isMachineId } from '../machine-spec.ts'
import type { Chosen } from './command-line.ts'
import { writeRuns } from './file-runs.ts'
import { isObject, objectOf } from './json-lines.ts'
import { files } from './machine-files.ts'
import type { ProcessUser } from './process.ts'
import { savedChoice } from './saved-choice.ts'

/**
 * The folder of one machine:
 *
 *   machine.json   what it is and how it stands; written whole, or not at all
 *   process        who runs it (process.ts)
 *   words.log      what QEMU said since the last start
 *   frozen         while the guest's file systems may stand still
 *   run/           QEMU's working folder, and QEMU's own where it runs as another user: disks, seed, sockets, console
 *
 * What QEMU may write is not trusted: a guest may have broken out of it. So the service keeps what it relies on one folder above,
 * and follows no symbolic link in `run/`.
 */
export interface MachineRecord {
  readonly format: 1
  /** False until the launch is answered: a folder that stays so is swept away. */
  readonly isLaunched: boolean
  readonly spec: KeptSpec
  readonly chosen: Chosen
  readonly power: 'on' | 'shutdown' | 'crashed'
  readonly reason: string | null
  /** Its memory is on its way, for which its processors may stand still. */
  readonly transit?: Transit
  /** Its ports were another process's when it came, and are forwarded to it as they come free. */
  readonly awaitsPorts?: true
  /** Of the migration by which it came, until the source knows that it is here. */
  readonly arrivalToken?: string
}

export interface Transit {
  /** How its processors stood before, and shall again. */
  readonly wasPaused: boolean
  /** It may go on there from now on, and goes on here only when that hypervisor has said that it does not. */
  readonly givenTo?: MigrationTarget
  /** It came from elsewhere, all of it, and goes on here. */
  readonly hasArrived?: true
  /** No memory goes anywhere: it stands still for its disks alone. */
  readonly isHeld?: true
}

/** The seed, which may hold secrets and is large, is on its disc and nowhere else. */
export type KeptSpec = Omit<MachineSpec, 'seed' | 'memory' | 'disks'> & {
  readonly hasSeed: boolean
  readonly disks: readonly KeptDisk[]
}

export interface KeptDisk extends MachineDisk {
  /** Its place among the machine's disks, for as long as it is one of them: from 0, no two the same. */
  readonly slot: number
  /** It is being attached or detached: if the process has it not when that was cut short, it is gone. */
  readonly isPassing?: true
  /** Numbers of its qcow2 files, the lowest first; all but the last are sealed. None where it has a store. */
  readonly layers: readonly number[]
}

/** As it is kept of a machine that is to be made. */
export function keptSpec({ seed, memory, ...spec }: MachineSpec): KeptSpec {
  const { slots } = memory ? savedChoice(memory.shape) : { slots: [] }
  const isSaved = slots.length === spec.disks.length
  return {
    ...spec,
    disks: spec.disks.map((disk, index) => keptDisk(disk, isSaved ? slots[index]! : index)),
    hasSeed: seed !== undefined || (memory?.seedDisc ?? null) !== null,
  }
}

/** A disk with a store has no files here. */
export const keptDisk = (disk: MachineDisk, slot: number): KeptDisk => ({ ...disk, slot, layers: disk.store ? [] : [0] })

const RECORD = 'machine.json'
const RUN = 'run'
const OUTGOING = 'out-'
const MAX_RECORD_BYTES = MiB
/** A qcow2 file has its tables, and places that it does not use any more. */
const MAX_LAYER_TO_DISK = 2
const MAX_TABLES_BYTES = 64 * MiB
/** More than any that is made here: the file is QEMU's. */
const MAX_SEED_DISC_BYTES = 8 * MiB
const PRIVATE_FOLDER = 0o700
const PRIVATE_FILE = 0o600
/** Where QEMU runs as another user, its working folder must be reachable from itself; names in here give away nothing. */
const PASSABLE_FOLDER = 0o711

export class MachineFolder {
  readonly path: string
  readonly #user: ProcessUser | undefined

  constructor(root: string, id: string, user?: ProcessUser) {
    if (!isMachineId(id)) throw new Error(`${id} names no machine`)
    this.path = join(root, id)
    this.#user = user
  }

  get run(): string {
    return join(this.path, RUN)
  }
  get identity(): { readonly path: string; readonly name: string } {
    return { path: join(this.path, 'process'), name: '../process' }
  }
  get words(): string {
    return join(this.path, 'words.log')
  }
  /** Where QEMU brings what it sends; `lend` opens it to QEMU. `fromRun`: from QEMU's folder. */
  outgoing(name: string): { readonly path: string; readonly fromRun: string } {
    const file = `${OUTGOING}${name}.sock`
    return { path: join(this.path, file), fromRun: `../${file}` }
  }
  /** There while the guest's file systems may stand still because we asked for it. */
  get frozen(): string {
    return join(this.path, 'frozen')
  }
  inRun(name: string): string {
    return join(this.run, name)
  }

  /**
   * Durable when it settles.
   * @param seed its files, or the disc itself
   * @param variables UEFI's template, where the machine starts by UEFI
   * @throws ServiceError `conflict` where the folder is there; `no-space`, `unavailable`
   */
  async create(record: MachineRecord, seed: SeedFiles | Uint8Array | undefined, variables: string | undefined): Promise<void> {
    const mode = this.#user ? PASSABLE_FOLDER : PRIVATE_FOLDER
    const { spec } = record
    try {
      await mkdir(this.path, { mode })
      await chmod(this.path, mode) // whatever the umask is
      await this.#save(record)
      await mkdir(this.run, { mode: PRIVATE_FOLDER })
      for (const disk of spec.disks) for (const layer of disk.layers.slice(-1)) await this.#makeLayer(disk, layer)
      if (seed) await this.#make(files.seed, (file) => file.writeFile(seed instanceof Uint8Array ? seed : seedDisc(seed)))
      if (variables) {
        const template = await readFile(variables)
        await this.#make(files.variables, (file) => file.writeFile(template))
      }
      await this.#make(files.console, async () => {})
      if (this.#user) await chown(this.run, this.#user.uid, this.#user.gid)
      for (const folder of [this.run, this.path, join(this.path, '..')]) await syncFolder(folder)
    } catch (error) {
      throw fileProblem(error, spec.id)
    }
  }

  /** For a user that may be another than at the last start: what QEMU has becomes theirs. @throws ServiceError `unavailable` */
  async handOver(id: string): Promise<void> {
    const { uid, gid } = this.#user ?? {}
    if (uid === undefined || gid === undefined) return
    try {
      await chmod(this.path, PASSABLE_FOLDER)
      for (const name of ['.', ...(await namesIn(this.run))]) {
        const path = this.inRun(name)
        const is = await lstat(path)
        if (is.isFile() && is.nlink > 1) continue // none that is made here has another name
        if (is.uid !== uid || is.gid !== gid) await lchown(path, uid, gid) // links are not followed
      }
    } catch (error) {
      throw fileProblem(error, id)
    }
  }

  /** Empty, on top of a disk's others. Durable when it settles. @throws ServiceError `no-space`, `unavailable` */
  async addLayer(id: string, disk: KeptDisk, layer: number): Promise<void> {
    try {
      await rm(this.inRun(files.disk(disk.name, layer)), { force: true }) // of an attempt that came to nothing
      await this.#makeLayer(disk, layer)
      await syncFolder(this.run)
    } catch (error) {
      throw fileProblem(error, id)
    }
  }

  /**
   * A sealed layer of another host's. Durable when it settles.
   * @throws ServiceError `conflict` where it is there, `corrupt` where it is no layer of that disk, `unavailable`, `too-large`, `no-space`
   */
  async receiveLayer(id: string, { name, bytes }: KeptDisk, layer: number, body: AsyncIterable<Uint8Array>): Promise<void> {
    const file = files.disk(name, layer)
    try {
      await this.#make(file, (handle) => writeRuns(handle, body, MAX_LAYER_TO_DISK * bytes + MAX_TABLES_BYTES))
      await syncFolder(this.run)
    } catch (error) {
      throw fileProblem(error, id)
    }
    // QEMU will open it: it must be what our own reader takes, which follows no names in files
    const disk = await openImage('qcow2', await openFileSource(this.inRun(file)))
    const { size } = disk
    await disk.close()
    if (size !== bytes)
      throw new ServiceError('corrupt', `A layer of the disk "${name}" of the machine ${id} has another size.`, { id })
  }

  /** What QEMU has written to a layer and the kernel not yet. */
  async syncLayer(disk: string, layer: number): Promise<void> {
    const file = await open(this.inRun(files.disk(disk, layer)), constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      await file.datasync()
    } finally {
      await file.close()
    }
  }

  /** @throws ServiceError `no-space`, `unavailable` */
  async write(record: MachineRecord): Promise<void> {
    await this.#save(record).catch((error) => {
      throw fileProblem(error, record.spec.id)
    })
  }

  /** Null where there is none: the folder was being made, or being removed. @throws ServiceError `corrupt` */
  async read(): Promise<MachineRecord | null> {
    const path = join(this.path, RECORD)
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null
      throw error
    })
    if (text === null) return null
    const record = text.length <= MAX_RECORD_BYTES ? objectOf(text) : undefined
    if (record?.format !== 1 || !isObject(record.spec)) {
      throw new ServiceError('corrupt', `The record of a machine cannot be read: ${path}. Restore it, or delete its folder.`)
    }
    return withSlots(record as unknown as MachineRecord)
  }

  /** All layers but those of these disks. @throws ServiceError `unavailable` */
  async dropOtherLayers(disks: readonly KeptDisk[]): Promise<void> {
    const kept = new Set(disks.flatMap(({ name, layers }) => layers.map((layer) => files.disk(name, layer))))
    try {
      const others = (await namesIn(this.run)).filter((file) => files.isLayer(file) && !kept.has(file))
      for (const file of others) await rm(this.inRun(file), { force: true })
    } catch (error) {
      throw fileProblem(error, basename(this.path))
    }
  }

  /** Space that its files take, holes not counted. */
  async diskBytes(): Promise<number> {
    let bytes = 0
    for (const folder of [this.path, this.run]) {
      for (const name of await namesIn(folder)) {
        const stat = await lstat(join(folder, name)).catch(() => null)
        if (stat?.isFile()) bytes += stat.blocks * 512 // the unit of st_blocks
      }
    }
    return bytes
  }

  /** What is left of a process that has ended, and would keep the next one from starting or be believed of it. */
  async sweepSockets(): Promise<void> {
    for (const name of [files.monitor, files.serial, files.agent, files.incoming, files.copies])
      await rm(this.inRun(name), { force: true })
    await rm(this.frozen, { force: true })
  }

  /** A socket in our own folder, which QEMU may use and not replace. */
  async lend(path: string): Promise<void> {
    await chmod(path, PRIVATE_FILE)
    if (this.#user) await chown(path, this.#user.uid, this.#user.gid)
  }

  async sweepOutgoing(): Promise<void> {
    for (const name of await namesIn(this.path)) if (name.startsWith(OUTGOING)) await rm(join(this.path, name), { force: true })
  }

  /** The disc with cloud-init's data as the guest reads it; null where it has none. @throws ServiceError `unavailable` */
  async readSeed(id: string): Promise<Uint8Array | null> {
    const file = await open(this.inRun(files.seed), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
      (error) => {
        if (error.code === 'ENOENT') return null
        throw fileProblem(error, id)
      },
    )
    if (!file) return null
    try {
      const { size } = await file.stat()
      const { bytesRead, buffer } = await file.read(new Uint8Array(Math.min(size, MAX_SEED_DISC_BYTES)))
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  }

  /** Emptied, for a new start; the caller closes it. */
  async openWords(): Promise<FileHandle> {
    const file = await open(this.words, 'a', PRIVATE_FILE)
    await file.truncate(0)
    return file
  }

  /**
   * The record first: what is left when this is cut short counts as nothing. The process must have ended, so that nothing plays
   * tricks with links meanwhile.
   */
  async remove(): Promise<void> {
    try {
      await rm(join(this.path, RECORD), { force: true })
      await rm(this.path, { recursive: true, force: true })
      await syncFolder(join(this.path, '..'))
    } catch (error) {
      throw fileProblem(error, basename(this.path))
    }
  }

  async #save(record: MachineRecord): Promise<void> {
    const unfinished = join(this.path, `${RECORD}.new`)
    const file = await open(unfinished, 'w', PRIVATE_FILE)
    try {
      await file.writeFile(`${JSON.stringify(record)}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(unfinished, join(this.path, RECORD))
    await syncFolder(this.path)
  }

  #makeLayer({ name, bytes }: KeptDisk, layer: number): Promise<void> {
    return this.#make(files.disk(name, layer), (file) => writeEmptyDisk(file, bytes))
  }

  async #make(name: string, fill: (file: FileHandle) => Promise<void>): Promise<void> {
    const file = await open(this.inRun(name), 'wx', PRIVATE_FILE)
    try {
      await file.chmod(PRIVATE_FILE) // whatever the umask is
      if (this.#user) await file.chown(this.#user.uid, this.#user.gid) // by its name it might be something else by now
      await fill(file)
      await file.sync()
    } finally {
      await file.close()
    }
  }
}

/** In records of before there were slots, a disk's place in the list was its slot. */
const withSlots = (record: MachineRecord): MachineRecord => ({
  ...record,
  spec: { ...record.spec, disks: record.spec.disks.map((disk, index) => ({ ...disk, slot: disk.slot ?? index })) },
})

/** A qcow2 file in which nothing is allocated: 320 KiB for a disk of 10 GiB. It names no file under it. */
async function writeEmptyDisk(file: FileHandle, bytes: number): Promise<void> {
  const empty = await wrapDisk('qcow2', memorySource(bytes, []))
  try {
    for (let at = 0; at < empty.size; at += MiB) {
      await file.writeFile(await empty.read(at, Math.min(MiB, empty.size - at))) // goes on where the last one ended
    }
  } finally {
    await empty.close()
  }
}

const namesIn = (folder: string): Promise<readonly string[]> =>
  readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** What a system call said, in our words. */
export function fileProblem(error: unknown, id: string): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  if (typeof code !== 'string' || error instanceof ServiceError) return error
  const details = { id, code, ...(syscall ? { syscall } : {}) }
  if (code === 'EEXIST') {
    return new ServiceError('conflict', `The machine ${id} has files here already; remove it first.`, details, { cause: error })
  }
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const message = `There is no room for the files of the machine ${id}; free some space and try again.`
    return new ServiceError('no-space', message, details, { cause: error })
  }
  const message = `The files of the machine ${id} cannot be written (${code}); see to the folder of the machines.`
  return new ServiceError('unavailable', message, details, { cause: error })
}
