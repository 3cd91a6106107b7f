import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { findBootRecord, putBootRecord } from '../../../images/boot-records/boot-records.ts'
import { imageOfExport } from '../../../images/leases/export-file.ts'
import { encodeBootRecord, MAX_BOOT_RECORD_BYTES } from '../../../store/content/boot-record.ts'
import { readBody } from '../../../store/content/decode-chunks.ts'
import { bodyOf, type Route, route } from './route.ts'
import type { ImprintServices } from './services.ts'

const binary = 'application/octet-stream' as const
const who = 'members of the project that made the export, administrators'
const params = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9_-]+$' }) })
const errors = ['unauthenticated', 'denied', 'not-found', 'unsupported', 'corrupt'] as const

export const bootRecordRoutes = ({ leases, images }: ImprintServices): readonly Route[] => [
  route({
    method: 'GET',
    path: '/exports/:id/file/boot-record',
    summary: 'What a machine reads when it starts from it',
    description:
      'Recorded at an earlier start; or, where there was none, at the start of the image that is most like it, as far as both have the same chunks. `imprint-boot-record` in the head of the answer says `own` or `like`.',
    who,
    params,
    reply: { status: 200, gives: binary, description: 'the record; `not-found` where nothing is known' },
    errors,
    async handle({ caller, params: { id }, reply }) {
      const image = await imageOfExport(leases.catalog, caller, id, leases.now())
      const found = await findBootRecord(images, image)
      if (!found) throw new ServiceError('not-found', 'no start of this image, or of one that is like it, was recorded yet')
      void reply.type(binary).header('imprint-boot-record', found.isOwn ? 'own' : 'like')
      return Buffer.from(encodeBootRecord(found.entries))
    },
  }),
  route({
    method: 'PUT',
    path: '/exports/:id/file/boot-record',
    summary: 'Say what a machine read when it started from it',
    description: 'Every entry must be a chunk of this file. There is one record; the project that owns the image may replace it.',
    who,
    params,
    takes: binary,
    reply: { status: 204, description: 'kept' },
    errors: [...errors, 'invalid-request', 'conflict', 'too-large'],
    async handle({ caller, params: { id }, request }) {
      const image = await imageOfExport(leases.catalog, caller, id, leases.now())
      const record = await readBody(bodyOf(request), MAX_BOOT_RECORD_BYTES)
      await putBootRecord(images, image, record, caller.isAdmin || (image.owner !== null && caller.projectId === image.owner))
    },
  }),
]
