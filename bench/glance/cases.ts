import type { BenchCase } from './bench-case.ts'
import { downloads } from './downloads.ts'
import { memory } from './memory.ts'
import { requests } from './requests.ts'
import { storage } from './storage.ts'
import { uploads } from './uploads.ts'

/** In the order in which they run. */
export const cases: readonly BenchCase[] = [uploads, downloads, requests, memory, storage]
