import type { ImageRecord, ProjectUsage } from './catalog.ts'

export const noUsage: ProjectUsage = { imageCount: 0, totalBytes: 0, stagedBytes: 0, uploadingCount: 0 }

const RECEIVING: ReadonlySet<string> = new Set(['saving', 'uploading', 'importing'])

/**
 * What one image counts against its owner: public images, which only administrators make, do not count as its own. While its only bytes are staged ones, `size` counts as staged; once it has a file
 * (or before it has any), as stored, and its parts (`notes.partBytes`) always do. `notes.reservedBytes` counts while bytes are on their way: as staged in `uploading`, else as stored.
 */
export function usageOf(image: ImageRecord): ProjectUsage {
  if (image.status === 'deleted' || image.status === 'killed') return noUsage
  const receiving = RECEIVING.has(image.status)
  const size = image.size ?? 0
  const onlyStaged = image.stagedManifest !== null && image.manifest === null
  const reservedBytes = receiving ? bytesOf(image.notes.reservedBytes) : 0
  const staging = image.status === 'uploading'
  return {
    imageCount: image.visibility === 'public' ? 0 : 1,
    totalBytes: (onlyStaged ? 0 : size) + bytesOf(image.notes.partBytes) + (staging ? 0 : reservedBytes),
    stagedBytes: (onlyStaged ? size : 0) + (staging ? reservedBytes : 0),
    uploadingCount: receiving ? 1 : 0,
  }
}

const bytesOf = (note: string | number | boolean | undefined): number => (typeof note === 'number' ? note : 0)

export const addUsage = (a: ProjectUsage, b: ProjectUsage, sign: 1 | -1 = 1): ProjectUsage => ({
  imageCount: a.imageCount + sign * b.imageCount,
  totalBytes: a.totalBytes + sign * b.totalBytes,
  stagedBytes: a.stagedBytes + sign * b.stagedBytes,
  uploadingCount: a.uploadingCount + sign * b.uploadingCount,
})
