package guardmatrix

// Control is one control subject, or one form of it.
type Control struct {
	// Subject has {stream}, {consumer} and {filter} in it, {x} for any other token, and
	// {account} for the hash of the caller's account.
	Subject string
	Rule    Rule
	// Bodies makes the forms of its payload.
	Bodies func(*target) []Body
	// Schema names the server's structs that it decodes, for the members of the payload.
	Schema []string
	// NeedsReply: without a reply subject it is refused, because it asks for events.
	NeedsReply bool
	// Reads: it gives events to the caller.
	Reads bool
}

// target is what a payload is about.
type target struct {
	stream   *Stream
	consumer Consumer
	name     string // of the consumer; empty for none
	filter   string // in the subject; empty for none
	members  []Member
	// twist: with what breaks the form of each member. It would multiply with everything
	// else, so one asset of each kind has it, and a consumer of one's own.
	twist bool
}

const api = "$JS.API."

// Controls are those that the guard judges by their contents.
var Controls = []Control{
	{Subject: api + "INFO", Rule: Everybody, Bodies: nothing},
	{Subject: "$SYS.REQ.USER.INFO", Rule: Everybody, Bodies: ignored},
	{Subject: api + "STREAM.NAMES", Rule: NameStreams, Bodies: nameStreams, Schema: []string{"JSApiStreamNamesRequest", "ApiPagedRequest"}},
	{Subject: api + "STREAM.INFO.{stream}", Rule: SeeStream, Bodies: optional(`{"offset":1}`), Schema: []string{"JSApiStreamInfoRequest", "ApiPagedRequest"}},
	{Subject: api + "STREAM.PURGE.{stream}", Rule: Purge, Bodies: purges, Schema: []string{"JSApiStreamPurgeRequest"}},

	{Subject: api + "STREAM.MSG.GET.{stream}", Rule: Read, Bodies: msgGets, Schema: []string{"JSApiMsgGetRequest"}, Reads: true},
	{Subject: api + "DIRECT.GET.{stream}", Rule: Read, Bodies: directGets, Schema: []string{"JSApiMsgGetRequest"}, Reads: true},
	{Subject: api + "DIRECT.GET.{stream}.{filter}", Rule: Read, Bodies: lastGets, Schema: []string{"JSApiMsgGetRequest"}, Reads: true},

	{Subject: api + "CONSUMER.CREATE.{stream}", Rule: CreateConsumer, Bodies: creates, Schema: []string{"CreateConsumerRequest", "ConsumerConfig"}},
	{Subject: api + "CONSUMER.CREATE.{stream}.{consumer}", Rule: CreateConsumer, Bodies: creates, Schema: []string{"CreateConsumerRequest", "ConsumerConfig"}},
	{Subject: api + "CONSUMER.CREATE.{stream}.{consumer}.{filter}", Rule: CreateConsumer, Bodies: creates, Schema: []string{"CreateConsumerRequest", "ConsumerConfig"}},
	{Subject: api + "CONSUMER.DURABLE.CREATE.{stream}.{consumer}", Rule: CreateConsumer, Bodies: durableCreates, Schema: []string{"CreateConsumerRequest", "ConsumerConfig"}},

	{Subject: api + "CONSUMER.MSG.NEXT.{stream}.{consumer}", Rule: UseConsumer, Bodies: nexts, Schema: []string{"JSApiConsumerGetNextRequest", "PriorityGroup"}, NeedsReply: true, Reads: true},
	{Subject: api + "CONSUMER.INFO.{stream}.{consumer}", Rule: SeeConsumer, Bodies: nothing},
	{Subject: api + "CONSUMER.DELETE.{stream}.{consumer}", Rule: ChangeConsumer, Bodies: nothing},
	{Subject: api + "CONSUMER.UNPIN.{stream}.{consumer}", Rule: ChangeConsumer, Bodies: required(`{"group":"g"}`), Schema: []string{"JSApiConsumerUnpinRequest"}},
	{Subject: api + "CONSUMER.RESET.{stream}.{consumer}", Rule: ChangeConsumer, Bodies: optional(`{"seq":1}`), Schema: []string{"JSApiConsumerResetRequest"}},

	{Subject: api + "STREAM.LIST", Rule: AdminStreams, Bodies: optional(`{"subject":"orders.>"}`), Schema: []string{"JSApiStreamListRequest", "ApiPagedRequest"}},
	{Subject: api + "STREAM.MSG.DELETE.{stream}", Rule: AdminStreams, Bodies: required(`{"seq":1}`), Schema: []string{"JSApiMsgDeleteRequest"}},
	{Subject: api + "CONSUMER.NAMES.{stream}", Rule: AdminConsumers, Bodies: optional(`{"offset":1}`), Schema: []string{"JSApiConsumersRequest", "ApiPagedRequest"}},
	{Subject: api + "CONSUMER.LIST.{stream}", Rule: AdminConsumers, Bodies: optional(`{"offset":1}`), Schema: []string{"JSApiConsumersRequest", "ApiPagedRequest"}},
	{Subject: api + "CONSUMER.PAUSE.{stream}.{consumer}", Rule: AdminConsumers, Bodies: optional(`{"pause_until":"2030-01-01T00:00:00Z"}`), Schema: []string{"JSApiConsumerPauseRequest"}},

	{Subject: "$JS.ACK.{stream}.{consumer}.1.1.1.0.0", Rule: UseConsumer, Bodies: acks},
	{Subject: "$JS.ACK._.{account}.{stream}.{consumer}.1.1.1.0.0", Rule: UseConsumer, Bodies: acks},
	{Subject: "$JS.ACK._.{account}.{stream}.{consumer}.1.1.1.0.0.more.tokens", Rule: UseConsumer, Bodies: acks},
	{Subject: "$JS.ACK.{stream}.{consumer}.1.1.1.0.0", Rule: UseConsumer, Bodies: ackNexts, NeedsReply: true, Reads: true},
	{Subject: "$JS.FC.{stream}.{consumer}.x", Rule: UseConsumer, Bodies: empty},
	{Subject: "$JS.FC._.{account}.{stream}.{consumer}.x", Rule: UseConsumer, Bodies: empty},

	{Subject: "$JS.ACK.{stream}.{consumer}.1.1.1.0.0.x", Bodies: some},             // 10 tokens are no ack
	{Subject: "$JS.ACK.{stream}.{consumer}", Bodies: some},                         //
	{Subject: "$JS.ACK.hub.{account}.{stream}.{consumer}.1.1.1.0.0", Bodies: some}, // another domain
	{Subject: "$JS.ACK._.abcdefgh.{stream}.{consumer}.1.1.1.0.0", Bodies: some},    // another account
	{Subject: "$JS.ACK._.{account}.{stream}.*.1.1.1.0.0", Bodies: some},            //
	{Subject: "$JS.FC.{stream}.{consumer}.x.y", Bodies: some},                      // 6 tokens
	{Subject: "$JS.FC._.abcdefgh.{stream}.{consumer}.x", Bodies: some},             //
	{Subject: api + "CONSUMER.MSG.NEXT.{stream}.{consumer}.x", Bodies: some},       //
	{Subject: api + "CONSUMER.MSG.NEXT.{stream}.*", Bodies: some},                  //
	{Subject: api + "CONSUMER.MSG.NEXT.*.{consumer}", Bodies: some},                //
	{Subject: api + "CONSUMER.CREATE.*", Bodies: some},                             //
	{Subject: api + "STREAM.INFO.>", Bodies: some},                                 //
	{Subject: "$JS.hub.API.STREAM.INFO.{stream}", Bodies: some},                    // of a domain
	{Subject: "$JS.hub.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", Bodies: some},   //
	{Subject: "$js.api.STREAM.INFO.{stream}", Bodies: some},                        //
	{Subject: "$JS.API.stream.info.{stream}", Bodies: some},                        //
	{Subject: "$JS.API", Bodies: some},                                             //
	{Subject: "$JS.API.", Bodies: some},                                            //
	{Subject: "$JS.API.STREAM..INFO.{stream}", Bodies: some},                       //
	{Subject: "$JS.API.STREAM.TEMPLATE.CREATE.{stream}", Bodies: some},             // of an older server
	{Subject: "$JS.API.NEW.THING.{stream}", Bodies: some},                          // of a newer one
}

// nobodys are control subjects that no client reaches, as the server writes them.
func nobodys() []Control {
	var out []Control
	for literal, kind := range known {
		if kind == nobody {
			out = append(out, Control{Subject: literal, Bodies: some})
		}
	}
	return out
}
