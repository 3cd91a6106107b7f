export { type Compression, compressions, type UnpackOptions, unpacked } from './compression/unpacked.ts'
