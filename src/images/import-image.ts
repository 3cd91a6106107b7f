/** `POST /v2/images/{id}/import` and what becomes of it; the engine is in import/. */

export { importImage, resumeImports } from './import/import-image.ts'
export { type ImportRequest, importRequestFrom } from './import/import-request.ts'
export { listTasks, showTask, type TaskRecord, tasksOfImage } from './import/tasks.ts'
