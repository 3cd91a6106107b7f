import * as nodeFiles from 'node:fs/promises'
import type { FileFunctions } from './fs-blob-store.ts'

/** May be changed while the functions are in use. */
export interface Fault {
  /** The n-th call that writes fails, counted from 1. */
  failAt?: number
  /** How it fails: `ENOSPC`, `EIO` … */
  readonly code?: string
  /** Counts and fails only calls of this name. */
  readonly only?: 'sync'
  /** Every write takes at most so many bytes, as a disk that fills up does. */
  readonly everyWriteAtMost?: number
}

/** The real file functions, of which one call that writes fails: a disk's faults, put beneath the code under test. */
export function faultyFiles(fault: Fault): { files: FileFunctions; calls(): number; failed(): string } {
  let calls = 0
  let failed = ''
  const meet = (name: string) => {
    if (fault.only && fault.only !== name) return
    calls += 1
    if (calls !== fault.failAt) return
    failed = name
    throw Object.assign(new Error(`${fault.code}: injected into ${name}`), { code: fault.code })
  }
  const files: FileFunctions = {
    ...nodeFiles,
    link: async (from, to) => {
      meet('link')
      await nodeFiles.link(from, to)
    },
    unlink: async (path) => {
      meet('unlink')
      await nodeFiles.unlink(path)
    },
    mkdir: (async (path: string, options: object) => {
      meet('mkdir')
      return nodeFiles.mkdir(path, options)
    }) as FileFunctions['mkdir'],
    open: async (path, flags, mode) => {
      meet(flags === 'r' ? 'open to read' : 'open')
      const handle = await nodeFiles.open(path, flags, mode)
      return new Proxy(handle, {
        get(target, name) {
          if (name === 'write')
            return async (bytes: Uint8Array, offset: number, length: number) => {
              meet('write')
              return target.write(bytes, offset, Math.min(length, fault.everyWriteAtMost ?? length))
            }
          if (name === 'sync')
            return async () => {
              meet('sync')
              await target.sync()
            }
          const value = Reflect.get(target, name, target)
          return typeof value === 'function' ? value.bind(target) : value
        },
      })
    },
  }
  return { files, calls: () => calls, failed: () => failed }
}
