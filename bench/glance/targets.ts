import type { Bench } from './bench-case.ts'
import type { ImageTarget } from './image-client.ts'

/** Both services as their member meets them. */
export const targets = ({ imprint, glance }: Bench): { readonly imprint: ImageTarget; readonly glance: ImageTarget } => ({
  imprint: { imageUrl: imprint.imageUrl, token: imprint.cast.member.token },
  glance: { imageUrl: glance.glance.url, token: glance.cast.member.token },
})
