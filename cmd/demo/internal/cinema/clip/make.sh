#!/bin/sh
# Makes the built-in clip again: 20 s of ffmpeg's test picture with its running
# timer, and a quiet tone that beeps each second.
#
#	clip.mp4   fragmented MP4, 640x360, with a segment index (sidx) at its front, so that players know its length and can seek
#	hls/       HLS with fMP4 segments of 4 s: master.m3u8 names 360p.m3u8 and 180p.m3u8
#
# Everything together stays under 2 MB: the binary and the repository carry it.
set -eu
cd "$(dirname "$0")"
rm -rf clip.mp4 hls
mkdir hls

# encode SIZE LEVEL CRF OUTPUT-OPTIONS: a fixed keyframe every 2 s, so that the HLS
# variants can be switched at any segment. One thread and bitexact: the same
# ffmpeg makes the same bytes.
encode() {
	size=$1 level=$2 crf=$3
	shift 3
	ffmpeg -hide_banner -loglevel error -y \
		-f lavfi -i "testsrc2=size=$size:rate=25:duration=20" \
		-f lavfi -i "sine=frequency=220:beep_factor=4:sample_rate=48000:duration=20" \
		-af volume=0.2 -c:a aac -b:a 48k -ac 1 \
		-c:v libx264 -profile:v main -level "$level" -preset veryslow -crf "$crf" -pix_fmt yuv420p \
		-g 50 -keyint_min 50 -sc_threshold 0 -threads 1 \
		-fflags +bitexact -flags:v +bitexact -flags:a +bitexact \
		"$@"
}

hls() { # SIZE LEVEL CRF NAME
	encode "$1" "$2" "$3" -f hls -hls_time 4 -hls_playlist_type vod -hls_segment_type fmp4 \
		-hls_flags independent_segments -hls_fmp4_init_filename "$4-init.mp4" \
		-hls_segment_filename "hls/$4-%d.m4s" "hls/$4.m3u8"
}

encode 640x360 3.1 30 -movflags +frag_keyframe+empty_moov+default_base_moof+global_sidx clip.mp4
hls 640x360 3.1 33 360p
hls 320x180 2.1 34 180p

# The master playlist. CODECS: avc1.4d40LL is H.264 main, LL the level in hex.
peak() { # the largest segment of variant $1, in bits per second at 4 s each
	wc -c hls/"$1"-?.m4s | awk '$2 != "total" && $1 > max { max = $1 } END { print max * 2 }'
}
{
	printf '#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n'
	printf '#EXT-X-STREAM-INF:BANDWIDTH=%s,RESOLUTION=640x360,CODECS="avc1.4d401f,mp4a.40.2"\n360p.m3u8\n' "$(peak 360p)"
	printf '#EXT-X-STREAM-INF:BANDWIDTH=%s,RESOLUTION=320x180,CODECS="avc1.4d4015,mp4a.40.2"\n180p.m3u8\n' "$(peak 180p)"
} >hls/master.m3u8

total=$(cat clip.mp4 hls/* | wc -c)
echo "clip: $total bytes"
[ "$total" -lt 2000000 ]
