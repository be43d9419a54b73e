package transport

import (
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/net/http2"
)

// The TCP carrier's frames are HTTP/2's (RFC 9113, section 4), read and written
// by x/net's Framer, without its requests: a stream is opened by its first
// frame, in either direction. Two extension frames (section 5.5) say what
// HTTP/2 has no word for. PROTOCOL.md, "TCP", is the text.
const (
	frameStop    http2.FrameType = 0xf0 // of a stream, empty: the sender reads no more
	frameStreams http2.FrameType = 0xf1 // of the connection, u32: how many streams the receiver may have opened in all

	frameHeaderLen = 9
	// maxFrame is the longest payload of a frame, and its batch the plaintext of
	// one TLS record.
	maxFrame = 16 << 10
	maxBatch = maxFrame
	// What an endpoint may use before it has read the relay's SETTINGS. A relay
	// may open no stream before it has read the endpoint's.
	firstWindow  = 64 << 10
	firstStreams = 16
	maxWindow    = 1<<31 - 1 // RFC 9113, section 6.9.1
)

// protocolError is a violation of the frames' rules by the other end.
type protocolError string

func (e protocolError) Error() string { return string(e) }

// outbox collects frames for one write to the connection. Its methods cannot
// fail: the Framer writes to memory.
type outbox struct {
	b []byte
	f *http2.Framer
}

func newOutbox() *outbox {
	o := &outbox{}
	o.f = http2.NewFramer(o, nil)
	return o
}

// Write takes a whole frame from the Framer.
func (o *outbox) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

// room is how many bytes of payload one more frame may have.
func (o *outbox) room() int { return maxBatch - len(o.b) - frameHeaderLen }

func (o *outbox) settings(w Windows) {
	o.f.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(max(w.Streams, 0))},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(w.Stream)})
}

func (o *outbox) stop(id uint32) { o.f.WriteRawFrame(frameStop, 0, id, nil) }

func (o *outbox) streams(total uint32) {
	o.f.WriteRawFrame(frameStreams, 0, 0, binary.BigEndian.AppendUint32(nil, total))
}

// frames is who takes what readFrames reads. An error ends the connection.
type frames interface {
	settings(window, streams uint32) error
	// data takes a DATA frame, whose n bytes it reads from r.
	data(id uint32, n int, fin bool, r io.Reader) error
	credit(id uint32, n uint32) error
	reset(id uint32, code uint32) error
	stop(id uint32) error
	streams(total uint32) error
	ping(ack bool, data [8]byte) error
	// goaway takes the last words of the other end.
	goaway(code uint32, text []byte) error
}

// readFrames reads frames from r until r or a taker fails. SETTINGS come first,
// and once. Types from 0x80 on that it does not know are skipped.
func readFrames(r io.Reader, to frames) error {
	f := http2.NewFramer(nil, r)
	f.SetMaxReadFrameSize(maxFrame)
	f.SetReuseFrames()
	for first := true; ; first = false {
		h, err := f.ReadFrameHeader()
		if err != nil {
			return frameError(err)
		}
		if first != (h.Type == http2.FrameSettings) {
			return protocolError("SETTINGS is the first frame and no other")
		}
		switch h.Type {
		case http2.FrameData:
			if h.StreamID == 0 || h.Flags.Has(http2.FlagDataPadded) {
				return protocolError("a DATA frame without a stream or with padding")
			}
			err = to.data(h.StreamID, int(h.Length), h.Flags.Has(http2.FlagDataEndStream), r)
		case http2.FrameSettings, http2.FrameRSTStream, http2.FrameWindowUpdate, http2.FramePing, http2.FrameGoAway, frameStop, frameStreams:
			var frame http2.Frame
			if frame, err = f.ReadFrameForHeader(h); err == nil {
				err = take(frame, to)
			}
		default:
			if h.Type < 0x80 {
				return protocolError("a frame of a type that has no meaning here")
			}
			_, err = io.CopyN(io.Discard, r, int64(h.Length))
		}
		if err != nil {
			return frameError(err)
		}
	}
}

// take passes one frame on.
func take(frame http2.Frame, to frames) error {
	id := frame.Header().StreamID
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		window, ok := f.Value(http2.SettingInitialWindowSize)
		streams, ok2 := f.Value(http2.SettingMaxConcurrentStreams)
		if f.IsAck() || !ok || !ok2 || window < firstWindow || window > maxWindow || streams > maxWindow {
			return protocolError("SETTINGS without a window and a number of streams that are possible")
		}
		return to.settings(window, streams)
	case *http2.RSTStreamFrame:
		return to.reset(id, uint32(f.ErrCode))
	case *http2.WindowUpdateFrame:
		return to.credit(id, f.Increment)
	case *http2.PingFrame:
		return to.ping(f.IsAck(), f.Data)
	case *http2.GoAwayFrame:
		return to.goaway(uint32(f.ErrCode), f.DebugData())
	case *http2.UnknownFrame:
		switch {
		case f.Type == frameStop && id != 0 && len(f.Payload()) == 0:
			return to.stop(id)
		case f.Type == frameStreams && id == 0 && len(f.Payload()) == 4:
			return to.streams(binary.BigEndian.Uint32(f.Payload()))
		}
	}
	return protocolError("a malformed frame")
}

// frameError tells the Framer's complaints from those of the connection.
func frameError(err error) error {
	_, conn := errors.AsType[http2.ConnectionError](err)
	_, stream := errors.AsType[http2.StreamError](err)
	if conn || stream || errors.Is(err, http2.ErrFrameTooLarge) {
		return protocolError("a malformed frame")
	}
	return err
}
