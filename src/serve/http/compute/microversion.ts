import type { Microversions } from '../microversion.ts'

/**
 * The levels of Nova's API. Source: Nova, "REST API Version History". What is not served here at all (volumes, migrations …) is not
 * served at any level.
 */
export const computeMicroversions = {
  service: 'compute',
  major: 2,
  least: 1,
  /** Beyond it: 2.80 and later, of which most concern migrations, accelerators and volumes. */
  most: 79,
  olderHeader: 'x-openstack-nova-api-version',
} as const satisfies Microversions
