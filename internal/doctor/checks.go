package doctor

// Check is one entry of the list of checks.
type Check struct{ ID, Title string }

// The identifiers of the checks. They are an interface: none is ever given another
// meaning.
const (
	idConfig, idStart                          = "CONFIG_001", "CONFIG_002"
	idPolicy, idPolicyInForce                  = "POLICY_001", "POLICY_002"
	idKeyring, idNodeKey, idRingInForce        = "KEYS_001", "KEYS_002", "KEYS_003"
	idRootSeed, idAttestation                  = "KEYS_004", "KEYS_005"
	idRecipients                               = "KEYS_006"
	idSecretMode                               = "FILE_001"
	idCert, idCertNames, idCertNode, idCertUse = "CERT_001", "CERT_002", "CERT_003", "CERT_004"
	idChain                                    = "CERT_005"
	idClockFiles, idClockKernel, idClockBroker = "CLOCK_001", "CLOCK_002", "CLOCK_003"
	idState, idDiskFree, idDiskRoom            = "DISK_001", "DISK_002", "DISK_003"
	idDiskType, idDiskOwn, idInodes            = "DISK_004", "DISK_005", "DISK_006"
	idDurability, idDurabilityInForce          = "DURABILITY_001", "DURABILITY_002"
	idFileLimit, idOpenFiles                   = "LIMIT_001", "LIMIT_002"
	idReach, idRoundTrip                       = "CONN_001", "CONN_002"
	idHealth                                   = "HEALTH_001"
	idLog, idLogRoom                           = "LOG_001", "LOG_002"
	idLive, idReady, idScrape                  = "OPS_001", "OPS_002", "OPS_003"
	idReload, idPanics                         = "RELOAD_001", "PANIC_001"
	idTenantFull                               = "STORE_001"
	idStreamFull, idUnread                     = "STREAM_001", "STREAM_002"
	idConsumers, idStuck, idRedelivered        = "CONSUMER_001", "CONSUMER_002", "CONSUMER_003"
	idFallsBehind                              = "CONSUMER_004"
	idLettersFull, idLettersDropped, idLetters = "DLQ_001", "DLQ_002", "DLQ_003"
	idRefusals                                 = "REFUSAL_001"
	idNodes, idNodesPolicy, idNodesRing        = "CLUSTER_001", "CLUSTER_002", "CLUSTER_003"
	idNodesVersion, idLeader, idReplicas       = "CLUSTER_004", "CLUSTER_005", "CLUSTER_006"
)

// Checks returns all checks, by identifier. The caller owns the slice.
func Checks() []Check {
	return []Check{
		{idCert, "the server certificate on disk is valid and does not expire soon"},
		{idCertNames, "the server certificate fits its key and the advertised names"},
		{idCertNode, "the certificate of the routes is valid and does not expire soon"},
		{idCertUse, "the certificate in use does not expire soon"},
		{idChain, "the chain that the client port shows is trusted and does not expire soon"},
		{idClockFiles, "the clock is not before what keyring and certificates say"},
		{idClockKernel, "the kernel says that its clock is synchronised"},
		{idClockBroker, "the clocks here and of the broker agree"},
		{idNodes, "every node of the context answers"},
		{idNodesPolicy, "every node has the same policy in force"},
		{idNodesRing, "every node has the same keyring version in force"},
		{idNodesVersion, "every node runs the same version"},
		{idLeader, "every replicated stream has a leader"},
		{idReplicas, "every replicated stream has all its replicas"},
		{idConfig, "the configuration file is valid"},
		{idStart, "a start would accept policy, schemas, keys and certificates"},
		{idReach, "the broker answers through TLS, with the credential of the context"},
		{idRoundTrip, "an admin request is answered fast"},
		{idConsumers, "the consumers can be listed"},
		{idStuck, "no consumer stands still with events to do"},
		{idRedelivered, "no consumer gets the same events again and again"},
		{idFallsBehind, "no consumer falls behind between two samples"},
		{idState, "the state folder is there, and is the broker's own"},
		{idDiskFree, "the volume of the state has free space"},
		{idDiskRoom, "the volume holds what storage.maxBytes allows"},
		{idDiskType, "the file system of the state keeps what it acknowledges"},
		{idDiskOwn, "the state has a volume of its own"},
		{idInodes, "the volume of the state has free inodes"},
		{idLettersFull, "the dead-letter stream has room"},
		{idLettersDropped, "no dead letter was dropped"},
		{idLetters, "there are no dead letters"},
		{idDurability, "the configured durability survives a power cut"},
		{idDurabilityInForce, "the durability in force survives a power cut, and is the configured one"},
		{idSecretMode, "files with secrets are kept from others"},
		{idHealth, "every part of the broker is well"},
		{idKeyring, "the keyring on disk is signed by the root and does not expire soon"},
		{idNodeKey, "the node key may attest, and its time does not end soon"},
		{idRingInForce, "the keyring in force does not expire soon"},
		{idRootSeed, "the root seed is not beside the broker"},
		{idAttestation, "the broker can attest for long enough"},
		{idRecipients, "whoever has to encrypt has a recipient, whose key does not end soon"},
		{idFileLimit, "the limit of open files fits gate.maxConnections"},
		{idOpenFiles, "the broker has file descriptors left"},
		{idLog, "no log of a stream stands still or is behind"},
		{idLogRoom, "no log of a stream is near the end of its room"},
		{idLive, "the broker is live"},
		{idReady, "the broker is ready"},
		{idScrape, "the metrics can be read"},
		{idPanics, "no connection was ended by a fault of the broker"},
		{idPolicy, "the policy files are valid"},
		{idPolicyInForce, "the policy in force is that of the files"},
		{idRefusals, "few refusals of one code lately"},
		{idReload, "the last reload went well"},
		{idTenantFull, "no tenant is near its storage limit"},
		{idStreamFull, "no stream is near its maxBytes"},
		{idUnread, "no event is about to expire unread"},
	}
}
