package broker

const defaultDurability = DurabilityBarrier
