package jsapi

// schedulesShown are the requests about wire.StreamSchedules that administrators may make:
// they tell its size and who reads it. Whoever deleted its consumer, or a message, would end
// schedules without a record.
var schedulesShown = map[string]bool{"STREAM.INFO": true, "CONSUMER.INFO": true, "CONSUMER.NAMES": true, "CONSUMER.LIST": true}
