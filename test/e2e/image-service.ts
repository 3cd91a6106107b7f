import { mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { answers, freePort, type Peer, scratchFolder, startDaemon, together } from '../peers/daemon.ts'
import { assembleCast, cast, type KnownAccount, type Role } from '../peers/identity-client.ts'

/** An image service that clients find through an identity service, with the whole cast able to log in. */
export interface ImageService extends Peer {
  /** With `/v3` at the end. */
  readonly identityUrl: string
  /** Without `/v2`. */
  readonly imageUrl: string
  readonly cast: Readonly<Record<Role, KnownAccount & { readonly token: string }>>
}
export interface ImprintService extends ImageService {
  readonly pid: number
  readonly address: string
  readonly dataFolder: string
}
export interface ImprintOptions {
  /** Settings by name in the environment, beyond address, data folder and password. */
  readonly settings?: Readonly<Record<string, string>>
  /** Of an earlier run, to start on again; it is kept when this one stops. */
  readonly dataFolder?: string
}

const root = resolve(import.meta.dirname, '../..')

/** The service as `imprint serve` starts it, on a free port, its data in a folder that goes with it. */
export async function startImprint(options: ImprintOptions = {}): Promise<ImprintService> {
  const scratch = await scratchFolder('service')
  const dataFolder = options.dataFolder ?? join(scratch.path, 'data')
  await mkdir(dataFolder, { recursive: true })
  const listen = `127.0.0.1:${await freePort()}`
  const address = `http://${listen}`
  try {
    const daemon = await startDaemon({
      name: 'imprint',
      folder: scratch.path,
      command: [join(root, 'bin/imprint'), 'serve'],
      env: {
        IMPRINT_LISTEN: listen,
        IMPRINT_DATA: dataFolder,
        IMPRINT_ADMIN_PASSWORD: cast.admin.password,
        IMPRINT_LOG_LEVEL: 'warn',
        IMPRINT_PASSWORD_PASSES: '1', // clients log in hundreds of times
        IMPRINT_INSTANCE_ACCELERATOR: 'tcg', // also where the host has better: guests behave the same on every machine
        NODE_TEST_CONTEXT: undefined, // it is no test file
        ...options.settings,
      },
      ready: answers(`${address}/readyz`),
    })
    const identityUrl = `${address}/identity/v3`
    const known = { identityUrl, imageUrl: `${address}/image`, pid: daemon.pid, address, dataFolder }
    return together('imprint', [scratch, daemon], { ...known, cast: await assembleCast(identityUrl) })
  } catch (error) {
    await scratch.stop()
    throw error
  }
}

/**
 * The service under test: Imprint; or, to try the tests themselves, the one at `IMPRINT_E2E_IDENTITY` (an Identity v3 URL whose
 * administrator is admin with password admin) and `IMPRINT_E2E_IMAGE`.
 */
export async function startServiceUnderTest(options: ImprintOptions = {}): Promise<ImageService> {
  const { IMPRINT_E2E_IDENTITY: identityUrl, IMPRINT_E2E_IMAGE: imageUrl } = process.env
  if (!identityUrl || !imageUrl) return startImprint(options)
  return { name: 'under test', identityUrl, imageUrl, cast: await assembleCast(identityUrl), stop: async () => {} }
}
