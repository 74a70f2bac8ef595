/** What an event is, and how large its parts may be. */
import type { Instant } from '../time/instant.ts'

/** An event that may be stored; optional fields that were not sent hold their sentinel ('' or 0). */
export interface Event {
  id: string
  eventType: EventType
  timestamp: Instant
  assistant: string
  user: string
  /** 1e-9 USD */
  costNanos: number
  inputTokens: number
  outputTokens: number
  model: string
  traceId: string
  /** A JSON object as text, or ''. */
  metadata: string
}

/** Above this a cost in nano-dollars would no longer be an exact number; no single event costs a million dollars. */
export const MAX_COST = 1_000_000
export const MAX_TOKENS = 0xffff_ffff
export const MAX_METADATA_BYTES = 4_096

export const EVENT_TYPES = ['incomingMessages', 'outgoingMessages', 'tasksInitiated', 'tasksCompleted'] as const
export type EventType = (typeof EVENT_TYPES)[number]

/** Ids of assistants and users are opaque; DESIGN: 1 to 256 characters. */
export const MAX_ID_LENGTH = 256
