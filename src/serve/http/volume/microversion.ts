import type { Microversions } from '../microversion.ts'

/**
 * The levels of Cinder's API. Source: Cinder, "REST API Version History". What is not served here at all (backups, groups, transfers …)
 * is not served at any level.
 */
export const volumeMicroversions = {
  service: 'volume',
  major: 3,
  least: 0,
  /** Beyond it: 3.68 and later, which concern re-imaging and transfers. */
  most: 67,
} as const satisfies Microversions
