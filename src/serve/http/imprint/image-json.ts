import type { ImageRecord } from '../../../store/catalog/catalog.ts'

/** An image in the words of the image API, without its links. */
export const imageJson = (image: ImageRecord): object => ({
  ...image.properties,
  id: image.id,
  name: image.name,
  status: image.status,
  visibility: image.visibility,
  owner: image.owner,
  protected: image.protected,
  os_hidden: image.hidden,
  disk_format: image.diskFormat,
  container_format: image.containerFormat,
  min_disk: image.minDisk,
  min_ram: image.minRam,
  size: image.size,
  virtual_size: image.virtualSize,
  checksum: image.checksum,
  os_hash_algo: image.hashAlgo,
  os_hash_value: image.hashValue,
  created_at: new Date(image.createdAt).toISOString(),
  updated_at: new Date(image.updatedAt).toISOString(),
  tags: image.tags,
})
