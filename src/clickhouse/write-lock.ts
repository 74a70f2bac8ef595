/**
 * Runs work while no events are being stored. What runs in it sees no insert half done, and delays every insert: it must be
 * short. Rejects with what the work throws.
 */
export type Exclusive = <T>(work: () => Promise<T>) => Promise<T>
