import type { Caller } from './caller.ts'

/** The least role that suffices; each includes those before it. */
export type Least = 'reader' | 'member' | 'admin'
/** What a caller may be taken for in the APIs of projects. */
export type Rank = 'none' | Least

const ranks: readonly Rank[] = ['none', 'reader', 'member', 'admin']

/**
 * A token for the whole system administers identity, and nothing of projects: with their secure defaults, Glance and Nova take tokens
 * of projects only.
 */
export function rankOf(caller: Caller): Rank {
  if (caller.systemScope) return 'none'
  if (caller.isAdmin) return 'admin'
  if (caller.roles.has('member')) return 'member'
  return caller.roles.has('reader') ? 'reader' : 'none'
}

export const suffices = (rank: Rank, least: Least): boolean => ranks.indexOf(rank) >= ranks.indexOf(least)
