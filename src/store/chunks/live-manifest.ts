import type { Live, LiveManifest } from './chunk-store.ts'

export const liveManifestOf = (live: Live): LiveManifest => (typeof live === 'string' ? { manifest: live } : live)
