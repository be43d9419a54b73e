package mutants

// edit replaces one text, which the file has exactly once.
type edit struct{ file, old, new string }

// weakening is a check that is taken out, and which tests must notice.
type weakening struct {
	name  string
	edits []edit
	tests []string // package and -run pattern, one after the other
}

const (
	e2e     = "./crypto/e2e"
	hostile = "./crypto/hostile"
	pairing = "./crypto/pair"
)

// Tests that see most of what goes wrong in crypto/e2e.
var sealed = []string{hostile, "Hostile", e2e, "Test"}

var weakenings = []weakening{
	{"the agent does not compare a stream's commit", []edit{
		{"crypto/e2e/preface.go", "if subtle.ConstantTimeCompare(h.commit, p.commit[:]) != 1 {", "if subtle.ConstantTimeCompare(h.commit, p.commit[:]) != 1 && false {"},
	}, sealed},
	{"the device does not compare a reply's commit", []edit{
		{"crypto/e2e/preface.go", "if subtle.ConstantTimeCompare(h.commit, b[1+saltLen:acceptPrefaceLen]) != 1 {", "if subtle.ConstantTimeCompare(h.commit, b[1+saltLen:acceptPrefaceLen]) != 1 && false {"},
	}, sealed},
	{"a stream without END reads as complete", []edit{
		{"crypto/e2e/conn.go", "	if err := c.dead.Load(); err != nil {\n		return *err\n	}\n	if c.closed.Load() {", "	if err := c.dead.Load(); err != nil {\n		if *err == ErrTruncated {\n			return io.EOF\n		}\n		return *err\n	}\n	if c.closed.Load() {"},
	}, sealed},
	{"a stream's only carrier may bring records in any order", []edit{
		{"crypto/e2e/carrier.go", "inOrder := !alone || seq == k.heard", "inOrder := !alone || seq >= 0"},
	}, sealed},
	{"empty records come without end", []edit{
		{"crypto/e2e/inbox.go", "in.empty > maxEmpty && !ch.end", "in.empty > maxEmpty && !ch.end && false"},
	}, sealed},
	{"records that do not verify are passed over", []edit{
		{"crypto/e2e/record.go", "	if err != nil {\n		return 0, nil, errRecord\n	}\n	if next != nil {", "	if err != nil {\n		return recordData, nil, nil\n	}\n	if next != nil {"},
	}, sealed},
	{"records of unknown types are taken", []edit{
		{"crypto/e2e/record.go", "if kind != recordData && kind != recordEnd || len(content) > maxContent {", "if len(content) > maxContent {"},
	}, sealed},
	{"a record's header is not authenticated", []edit{
		{"crypto/e2e/record.go", "h.key.aead.Seal(body[:0], h.nonce[:], body, b[start:start+recordHeaderLen])", "h.key.aead.Seal(body[:0], h.nonce[:], body, nil)"},
		{"crypto/e2e/record.go", "rec[recordHeaderLen:], rec[:recordHeaderLen])", "rec[recordHeaderLen:], nil)"},
	}, sealed},
	{"all records of a stream have one nonce", []edit{
		{"crypto/e2e/record.go", "iv[nonceLen-8+i] ^= x", "iv[nonceLen-8+i] ^= 0 * x"},
	}, []string{e2e, "Nonce|KnownAnswers"}},
	{"a stream's keys have no salt of their own", []edit{
		{"crypto/e2e/preface.go", "	rand.Read(name.salt[:])\n", ""},
	}, []string{e2e, "Nonce|KnownAnswers"}},
	{"stream numbers may be used again", []edit{
		{"crypto/e2e/sealed.go", "case v.seen.use(name.id):", "case v.seen.use(name.id) || true:"},
	}, sealed},
	{"carrier numbers may be used again", []edit{
		{"crypto/e2e/replay.go", "	if back >= 64 || w.bits&(1<<back) != 0 {\n		return false\n	}\n	w.bits |= 1 << back\n	w.count++", "	w.bits |= 1 << back\n	w.count++"},
	}, sealed},
	{"the MAC of a further carrier is not verified", []edit{
		{"crypto/e2e/preface.go", "if subtle.ConstantTimeCompare(mac, b[resumptionLen-secretLen:resumptionLen]) != 1 {", "if subtle.ConstantTimeCompare(mac, b[resumptionLen-secretLen:resumptionLen]) != 1 && false {"},
	}, sealed},
	{"the MAC of a further carrier does not cover its link", []edit{
		{"crypto/e2e/preface.go", "r.append(bytes.Clone(binding))", "r.append(bytes.Clone(binding[:0]))"},
	}, sealed},
	{"the MAC of a JOIN is not verified", []edit{
		{"crypto/e2e/arrive.go", "if v == nil || !j.verify(v.secret, binding) {", "if v == nil {"},
	}, sealed},
	{"the MAC of a JOIN does not cover its link", []edit{
		{"crypto/e2e/join.go", "expand(secret, \"join\", binding, secretLen)", "expand(secret, \"join\", binding[:0], secretLen)"},
	}, sealed},
	{"the device does not compare the server's pin", []edit{
		{"crypto/e2e/profile.go", "if subtle.ConstantTimeCompare(pin[:], server[:]) != 1 {", "if subtle.ConstantTimeCompare(pin[:], server[:]) != 1 && false {"},
	}, sealed},
	{"a handshake without ML-KEM will do", []edit{
		{"crypto/e2e/profile.go", "[]tls.CurveID{tls.X25519MLKEM768}", "[]tls.CurveID{tls.X25519MLKEM768, tls.X25519}"},
		{"crypto/e2e/profile.go", "case cs.CurveID != tls.X25519MLKEM768:", "case cs.CurveID == 0:"},
	}, sealed},
	{"a handshake of TLS 1.2 will do", []edit{
		{"crypto/e2e/profile.go", "MinVersion:             tls.VersionTLS13,", "MinVersion:             tls.VersionTLS12,"},
		{"crypto/e2e/profile.go", "case cs.Version != tls.VersionTLS13:", "case cs.Version < tls.VersionTLS12:"},
		{"crypto/e2e/profile.go", "[]tls.CurveID{tls.X25519MLKEM768}", "[]tls.CurveID{tls.X25519MLKEM768, tls.X25519}"},
		{"crypto/e2e/profile.go", "case cs.CurveID != tls.X25519MLKEM768:", "case cs.CurveID == 0:"},
	}, sealed},
	{"any device is let in", []edit{
		{"crypto/e2e/arrive.go", "	if err != nil {\n		s.cfg.Log.Info(\"device refused\"", "	if err != nil && false {\n		s.cfg.Log.Info(\"device refused\""},
	}, sealed},
	{"a revoked device may open streams", []edit{
		{"crypto/e2e/sealed.go", "if _, err := s.cfg.Admit(v.peer); err != nil {", "if _, err := s.cfg.Admit(v.peer); err != nil && false {"},
	}, []string{e2e, "Revoke"}},
	{"revocation ends no session", []edit{
		{"crypto/e2e/server.go", "s.endSessions(func(v *served) bool { return v.peer == device },", "s.endSessions(func(v *served) bool { return false },"},
	}, []string{e2e, "Revoke|EndsHold"}},
	{"manipulated streams never end a session", []edit{
		{"crypto/e2e/session.go", "if n == maxTampered {", "if n == -maxTampered {"},
	}, sealed},
	{"an invite may be used twice", []edit{
		{"crypto/pair/conversation.go", "		s.dropInvite(secret)\n		dev, err = s.admit(", "		dev, err = s.admit("},
	}, []string{pairing, "Pair"}},
	{"an invite does not expire", []edit{
		{"crypto/pair/homefile.go", "subtle.ConstantTimeCompare(v.Secret[:], secret[:]) == 1 && now.Before(v.Expires)", "subtle.ConstantTimeCompare(v.Secret[:], secret[:]) == 1"},
	}, []string{pairing, "Test"}},
	{"an old invite lets a revoked device back in", []edit{
		{"crypto/pair/homefile.go", "if r.Pin == pinText(pin) && r.Generation >= opened {", "if r.Pin == pinText(pin) && r.Generation >= opened && false {"},
	}, []string{pairing, "Test"}},
	{"invites may be guessed at any rate", []edit{
		{"crypto/pair/conversation.go", "if h.failures >= maxFailures {", "if h.failures >= maxFailures && false {"},
	}, []string{pairing, "Test"}},
	{"the digits of a pairing do not depend on the connection", []edit{
		{"crypto/pair/conversation.go", "hkdf.Key(sha256.New, binding, nil,", "hkdf.Key(sha256.New, binding[:0], nil,"},
	}, []string{pairing, "Test"}},
	{"the relay takes any token", []edit{
		{"relay/registry.go", "case !slices.Contains(tokens, token):", "case len(tokens) < 0:"},
	}, []string{"./relay", "Test"}},
	{"an endpoint reads frames of any length", []edit{
		{"transport/wire/frame.go", "		if n > limit {\n", "		if n > limit && false {\n"},
	}, []string{hostile, "Hostile", "./transport/wire", "Test"}},
}
