import type { MachineFolder, MachineRecord } from './machine-folder.ts'

/** The record of one machine, as it is on disk: what is known here has been written. */
export class KeptRecord {
  readonly folder: MachineFolder
  #record: MachineRecord
  #writing: Promise<unknown> = Promise.resolve()

  constructor(folder: MachineFolder, record: MachineRecord) {
    this.folder = folder
    this.#record = record
  }

  get now(): MachineRecord {
    return this.#record
  }

  /** One after the other: each changes what the one before it left. Durable when it settles. @throws as `MachineFolder.write` */
  async save(change: (record: MachineRecord) => MachineRecord): Promise<void> {
    const write = this.#writing.then(async () => {
      const record = change(this.#record)
      await this.folder.write(record)
      this.#record = record
    })
    this.#writing = write.catch(() => {})
    await write
  }

  /** What could not be written is known all the same, until the machine is found again. */
  forceUnwritten(change: (record: MachineRecord) => MachineRecord): void {
    this.#record = change(this.#record)
  }

  /** Settles when all that was to be saved by now is, or has failed. */
  async settled(): Promise<void> {
    await this.#writing
  }
}
