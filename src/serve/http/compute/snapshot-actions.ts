import { Type } from '@sinclair/typebox'
import { createBackup, createSnapshot } from '../../../instances/snapshots/create-snapshot.ts'
import { bodyOf } from '../json-body.ts'
import type { Answer, Call } from './route.ts'
import { count, metadata, name, strict } from './schemas.ts'

/** `createImage` and `createBackup`. */

const createImageBody = bodyOf(
  Type.Object({ createImage: Type.Object({ name, metadata: Type.Optional(metadata) }, strict) }, strict),
)
const createBackupBody = bodyOf(
  Type.Object(
    {
      createBackup: Type.Object(
        {
          name,
          backup_type: Type.String({ maxLength: 255, description: '"daily", "weekly" or another word' }),
          rotation: count(0, 10_000),
          metadata: Type.Optional(metadata),
        },
        strict,
      ),
    },
    strict,
  ),
)

/** The first version that tells the id in the body, and no address. */
const ID_IN_BODY = 45

export async function createImageAction(call: Call, id: string): Promise<Answer> {
  const { name, metadata = {} } = createImageBody(call.body).createImage
  const wanted = { name, properties: metadata, withMemory: false, withMachine: false }
  return began(call, await createSnapshot(call.ports, call.caller, id, wanted))
}

export async function createBackupAction(call: Call, id: string): Promise<Answer> {
  const { name, backup_type: backupType, rotation, metadata = {} } = createBackupBody(call.body).createBackup
  const wanted = { name, properties: metadata, backupType, rotation: Number(rotation) }
  const imageId = await createBackup(call.ports, call.caller, id, wanted)
  return wanted.rotation === 0 ? { status: 202 } : began(call, imageId) // as Nova: it will be gone
}

const began = ({ minor, bookmarks }: Call, imageId: string): Answer =>
  minor >= ID_IN_BODY
    ? { status: 202, body: { image_id: imageId } }
    : { status: 202, headers: { location: `${bookmarks.replace(/\/compute$/, '')}/image/v2/images/${imageId}` } }
