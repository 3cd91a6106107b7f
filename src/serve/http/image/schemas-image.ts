import type { JsonSchema } from '../../../images/metadefs/schema-check.ts'

/** Image, member and task as `/v2/schemas/` describes them. Names, types and limits are Glance 25's; descriptions our own. */

/** Glance says which members of an image are custom properties that it knows by name. */
type ImageMember = JsonSchema & { readonly pattern?: string; readonly is_base?: false; readonly writeOnly?: true }
const members = <Name extends string>(schema: Record<Name, ImageMember>): Readonly<Record<Name, JsonSchema>> => schema

const UUID = '^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$'
const textOrNull = ['null', 'string']

export const containerFormats = ['ami', 'ari', 'aki', 'bare', 'ovf', 'ova', 'docker', 'compressed'] as const
export const diskFormats = ['ami', 'ari', 'aki', 'vhd', 'vhdx', 'vmdk', 'raw', 'qcow2', 'vdi', 'iso', 'ploop'] as const

const location: ImageMember = {
  type: 'object',
  properties: {
    url: { type: 'string', maxLength: 255 },
    metadata: { type: 'object' },
    validation_data: {
      description: 'Digests that the image takes over; once it has bytes, they must be the digests of those.',
      type: 'object',
      writeOnly: true,
      additionalProperties: false,
      properties: {
        checksum: { type: 'string', minLength: 32, maxLength: 32 },
        os_hash_algo: { type: 'string', maxLength: 64 },
        os_hash_value: { type: 'string', maxLength: 128 },
      },
      required: ['os_hash_algo', 'os_hash_value'],
    } as ImageMember,
  },
  required: ['url', 'metadata'],
}

export const imageSchema: JsonSchema = {
  name: 'image',
  properties: members({
    id: { type: 'string', description: 'Names the image', pattern: UUID },
    name: { type: textOrNull, description: 'What people call the image', maxLength: 255 },
    status: {
      type: 'string',
      readOnly: true,
      description: 'Where the image is in its life',
      enum: ['queued', 'saving', 'active', 'killed', 'deleted', 'uploading', 'importing', 'pending_delete', 'deactivated'],
    },
    visibility: { type: 'string', description: 'Who can see the image', enum: ['community', 'public', 'private', 'shared'] },
    protected: { type: 'boolean', description: 'While true, the image cannot be deleted.' },
    os_hidden: { type: 'boolean', description: 'While true, lists leave the image out unless they are asked for hidden ones.' },
    checksum: { type: textOrNull, readOnly: true, description: 'md5 of the bytes, in hex', maxLength: 32 },
    os_hash_algo: { type: textOrNull, readOnly: true, description: 'The algorithm of os_hash_value', maxLength: 64 },
    os_hash_value: { type: textOrNull, readOnly: true, description: 'Digest of the bytes, in hex', maxLength: 128 },
    owner: { type: textOrNull, description: 'The project that the image belongs to', maxLength: 255 },
    size: { type: ['null', 'integer'], readOnly: true, description: 'Bytes of the file' },
    virtual_size: { type: ['null', 'integer'], readOnly: true, description: 'Bytes of the disk that a guest sees' },
    container_format: { type: textOrNull, description: 'What the disk is wrapped in', enum: [null, ...containerFormats] },
    disk_format: { type: textOrNull, description: 'The format of the disk', enum: [null, ...diskFormats] },
    created_at: { type: 'string', readOnly: true, description: 'When the image was made' },
    updated_at: { type: 'string', readOnly: true, description: 'When the image was last changed' },
    tags: { type: 'array', description: 'Labels by which images can be found', items: { type: 'string', maxLength: 255 } },
    direct_url: { type: 'string', readOnly: true, description: 'Where a store outside keeps the bytes' },
    min_ram: { type: 'integer', description: 'Memory that a machine needs at least, in MB' },
    min_disk: { type: 'integer', description: 'Disk that a machine needs at least, in GB' },
    self: { type: 'string', readOnly: true, description: 'Path of this image' },
    file: { type: 'string', readOnly: true, description: "Path of this image's bytes" },
    stores: {
      type: 'string',
      readOnly: true,
      description: 'The stores that hold the bytes, with commas between; only where there are several.',
    },
    schema: { type: 'string', readOnly: true, description: 'Path of this schema' },
    locations: { type: 'array', items: location, description: 'Where stores outside keep the bytes' },
    kernel_id: {
      type: textOrNull,
      pattern: UUID,
      description: 'The image that holds the kernel, for an image that is started with one from outside.',
      is_base: false,
    },
    ramdisk_id: {
      type: textOrNull,
      pattern: UUID,
      description: 'The image that holds the initial RAM disk, for an image that is started with one from outside.',
      is_base: false,
    },
    instance_uuid: {
      type: 'string',
      description: 'The instance that this image was made from; a note, with no effect.',
      is_base: false,
    },
    architecture: {
      description: 'The processor that the system in it is built for: x86_64, aarch64 …',
      type: 'string',
      is_base: false,
    },
    os_distro: {
      description: 'Short name of the distribution in it, as libosinfo has it: debian, rhel, win2k22 …',
      type: 'string',
      is_base: false,
    },
    os_version: { description: "The system's version, as its maker writes it", type: 'string', is_base: false },
    description: { description: 'What a person should know about the image', type: 'string', is_base: false },
    cinder_encryption_key_id: {
      description: 'The key, in the key manager, of a volume made from this image',
      type: 'string',
      is_base: false,
    },
    cinder_encryption_key_deletion_policy: {
      description: 'Whether the key goes when the image goes; without this property it stays',
      type: 'string',
      enum: ['on_image_deletion', 'do_not_delete'],
      is_base: false,
    },
  }),
  additionalProperties: { type: 'string' },
  links: [
    { rel: 'self', href: '{self}' },
    { rel: 'enclosure', href: '{file}' },
    { rel: 'describedby', href: '{schema}' },
  ],
}

const link: JsonSchema = { readOnly: true, type: 'string' }

export const memberSchema: JsonSchema = {
  name: 'member',
  properties: members({
    member_id: { type: 'string', description: 'The project that the image is shared with' },
    image_id: { type: 'string', description: 'The image', pattern: UUID },
    created_at: { type: 'string', description: 'When it was shared' },
    updated_at: { type: 'string', description: 'When the membership was last changed' },
    status: { type: 'string', description: 'What the project said to it', enum: ['pending', 'accepted', 'rejected'] },
    schema: link,
  }),
}

const taskMembers = members({
  id: { description: 'Names the task', pattern: UUID, type: 'string' },
  type: { description: 'What the task does', enum: ['import', 'api_image_import'], type: 'string' },
  status: { description: 'How far the task is', enum: ['pending', 'processing', 'success', 'failure'], type: 'string' },
  input: { description: 'What the task was given, as JSON', type: ['null', 'object'] },
  result: { description: 'What came of the task, as JSON', type: ['null', 'object'] },
  owner: { description: 'The project that the task belongs to', type: 'string' },
  message: { description: 'What a person should know: most often, why it failed', type: 'string' },
  image_id: { description: 'The image that the task works on', type: 'string' },
  request_id: { description: 'The request that began the task', type: 'string' },
  user_id: { description: 'The user who began the task', type: 'string' },
  expires_at: { description: 'When the record of the task may go', type: textOrNull },
  created_at: { description: 'When the task was made', type: 'string' },
  updated_at: { description: 'When the task was last changed', type: 'string' },
  self: link,
  schema: link,
})
const inList = ([name]: [string, JsonSchema]): boolean => !['input', 'result', 'message'].includes(name)
export const taskSchema: JsonSchema = { name: 'task', properties: taskMembers }
/** In a list, a task is shown without what it was given and what came of it. */
export const taskListItemSchema: JsonSchema = {
  name: 'task',
  properties: Object.fromEntries(Object.entries(taskMembers).filter(inList)),
}

/** The schema of a list that is not served in pages. */
export const plainCollectionOf = (name: string, item: JsonSchema): JsonSchema => ({
  name,
  properties: { [name]: { type: 'array', items: item }, schema: { type: 'string' } },
  links: [{ rel: 'describedby', href: '{schema}' }],
})
