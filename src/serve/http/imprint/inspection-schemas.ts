import { type TSchema, Type } from '@sinclair/typebox'
import { bytes } from './schemas.ts'

const nullable = <Schema extends TSchema>(schema: Schema) => Type.Union([schema, Type.Null()])
const notes = Type.Array(Type.String(), { description: 'a sentence each' })
const Partition = Type.Object({
  number: Type.Integer(),
  offset: bytes('of the disk'),
  length: bytes('of the partition'),
  type: Type.String({ description: 'GUID, or `0x83`' }),
  typeName: nullable(Type.String()),
  name: Type.String(),
  id: Type.String({ description: 'PARTUUID' }),
})
const VolumeOfDisk = Type.Object({
  name: Type.String({ description: '`partition 1`, `disk`, `group/volume`' }),
  offset: nullable(bytes('of the disk')),
  bytes: bytes('of the volume'),
  partition: nullable(Type.Integer()),
  type: nullable(Type.String({ description: 'as `blkid` says' })),
  label: Type.String(),
  uuid: Type.String(),
  usedBytes: nullable(bytes('of the file system')),
  totalBytes: nullable(bytes('of the file system')),
  notes,
})
const System = Type.Object({
  family: Type.Union([Type.Literal('linux'), Type.Literal('windows')]),
  volume: Type.String(),
  os: nullable(
    Type.Object({
      distro: Type.String(),
      like: Type.Array(Type.String()),
      version: Type.String(),
      fullVersion: Type.String(),
      codename: Type.String(),
      name: Type.String(),
      architecture: nullable(Type.String()),
      hostname: nullable(Type.String()),
      init: nullable(Type.String()),
      evidence: Type.Array(Type.String({ description: 'a path' })),
    }),
  ),
  mounts: Type.Array(Type.Object({ path: Type.String(), volume: nullable(Type.String()) })),
  accounts: nullable(
    Type.Array(
      Type.Object({
        name: Type.String(),
        uid: Type.Integer(),
        home: Type.String(),
        shell: Type.String(),
        password: Type.String({ description: '`empty`, `locked`, `set`' }),
        passwordScheme: nullable(Type.String()),
        keys: Type.Array(
          Type.Object({ type: Type.String(), fingerprint: Type.String(), comment: Type.String(), path: Type.String() }),
        ),
        canLogIn: Type.Boolean(),
      }),
    ),
  ),
  services: nullable(Type.Array(Type.Object({ unit: Type.String(), init: Type.String(), by: Type.String() }))),
  repositories: nullable(
    Type.Array(
      Type.Object({
        system: Type.String(),
        url: Type.String(),
        parts: Type.String(),
        isEnabled: Type.Boolean(),
        path: Type.String(),
      }),
    ),
  ),
  changedFiles: nullable(
    Type.Object({
      files: Type.Array(Type.Object({ path: Type.String(), package: Type.String(), state: Type.String() })),
      compared: Type.Integer(),
      notes,
    }),
  ),
  software: nullable(Type.Object({ packages: Type.Integer({ description: 'how many' }), failures: notes })),
  notes,
})
export const Inspection = Type.Object({
  table: nullable(
    Type.Object({
      scheme: Type.String({ description: '`gpt`, `mbr`' }),
      sectorBytes: Type.Integer(),
      partitions: Type.Array(Partition),
      notes,
    }),
  ),
  volumes: Type.Array(VolumeOfDisk),
  systems: Type.Array(System),
  inspectedAt: Type.String(),
})

export const Packages = Type.Object({
  packages: Type.Array(
    Type.Object({
      kind: Type.String({ description: 'as in a package URL' }),
      name: Type.String(),
      version: Type.String(),
      architecture: nullable(Type.String()),
      source: nullable(Type.Object({ name: Type.String(), version: Type.String() })),
      installedBytes: nullable(bytes('of its files')),
      path: Type.String({ description: 'the file that says so' }),
      volume: Type.String(),
    }),
  ),
  total: Type.Integer(),
  next: nullable(Type.Integer({ description: '`after` of the next page' })),
  complete: Type.Boolean(),
})
