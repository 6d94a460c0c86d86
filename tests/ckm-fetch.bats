#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# ckm-fetch: from a real web server (nginx) and from bad ones (tests/tools/badserver.c), all on the loopback interface.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR"
	export XDG_CACHE_HOME=$BATS_TEST_TMPDIR/xdg
	unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
	servers=()
}

teardown() {
	local pid
	for pid in "${servers[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
}

# A series of images and their packages in ./www, shared: v1, v2 (its update), v2d (the difference), v3 (laid out anew).
use_series() {
	local dir
	dir=$(image_cache)/fetch-series
	(
		flock 9
		[ -e "$dir/done" ] || {
			"$top/scripts/mkimage" -q --corpus synthetic --size 96M --series "$dir"
			ckm-pack -q -1 -o "$dir/v1.ckm" "$dir/v1.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm" -o "$dir/v2.ckm" "$dir/v2.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm" --difference -o "$dir/v2d.ckm" "$dir/v2.vhd"
			ckm-pack -q -1 -o "$dir/v3.ckm" "$dir/v3.vhd"
			touch "$dir/done"
		}
	) 9>"$dir.lock"
	www=$dir
	frames=$(($(stat -c %s "$www/v2.ckm") - $(stat -c %s "$www/v2.ckm.index")))
}

# bad [OPTION]... DIR: start a bad server; $url is where it serves.
bad() {
	local port
	"$build/tests/badserver" --log "$BATS_TEST_TMPDIR/log" "$@" >port 2>/dev/null 3>&- &
	servers+=($!)
	for _ in $(seq 250); do
		[ ! -s port ] || break
		sleep 0.02
	done
	port=$(cat port)
	rm port
	url=http://127.0.0.1:$port
}

# nginx_serve DIR [SERVER-DIRECTIVES]: a real one; $url likewise.
nginx_serve() {
	local port
	skip_without nginx
	mkdir -p ng
	for _ in $(seq 20); do
		port=$((20000 + RANDOM % 30000))
		cat >ng/conf <<-CONF
			daemon off;
			master_process off;
			pid pid;
			error_log error.log;
			events { worker_connections 64; }
			http {
				log_format brief '\$uri \$http_range \$status \$body_bytes_sent \$server_protocol';
				access_log access.log brief;
				client_body_temp_path t1;
				proxy_temp_path t2;
				fastcgi_temp_path t3;
				uwsgi_temp_path t4;
				scgi_temp_path t5;
				server {
					listen 127.0.0.1:$port ${3:-};
					root $1;
					${2:-}
				}
			}
		CONF
		rm -f ng/pid
		nginx -p "$BATS_TEST_TMPDIR/ng" -c "$BATS_TEST_TMPDIR/ng/conf" >/dev/null 2>&1 3>&- &
		# the pid is written when the port is its own
		while [ ! -s ng/pid ] && kill -0 $! 2>/dev/null; do sleep 0.02; done
		if [ -s ng/pid ]; then
			servers+=($!)
			url=http://127.0.0.1:$port
			return
		fi
	done
	cat ng/error.log
	return 1
}

# Bytes of the package's body that a bad server has sent.
sent() {
	awk '$1 == "v2.ckm" { s += $4 } END { printf "%d", s }' log
}

field() {
	sed -n 's/^ *"'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' <<<"$output" | head -n 1
}

# ---- A real server ----

@test "an image from nginx: index first, then ranges, and the same disk" {
	use_series
	nginx_serve "$www"
	run -0 ckm-fetch --json -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	[ ! -e out.vhd.part ]
	[ "$(head -n 1 ng/access.log | cut -d' ' -f1)" = /v2.ckm.index ]
	[ "$(field requests)" = "$(wc -l <ng/access.log)" ]
	[ "$(field fetched_bytes)" = "$(awk '{ s += $(NF - 1) } END { print s }' ng/access.log)" ]
	awk 'NR > 1 && $(NF - 2) != 206 { print; bad = 1 } END { exit bad }' ng/access.log
	run -3 ckm-fetch -o out.vhd "$url/v2.ckm"
}

@test "with the old version as seed only the update is fetched, in few requests" {
	use_series
	nginx_serve "$www"
	run -0 ckm-fetch --json --seed "$www/v1.vhd" -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	[ "$(field requests)" -le 3 ]
	[ "$(field fetched_bytes)" -lt $((frames / 4)) ]
	# told before
	run -0 ckm-fetch -n --json --seed "$www/v1.vhd" "$url/v2.ckm"
	plan=$(field frame_bytes)
	run -0 ckm-fetch --json --seed "$www/v1.vhd" -f -o other.vhd "$url/v2.ckm"
	[ "$(field frame_bytes)" = "$plan" ]
	run -0 ckm-fetch -n --seed "$www/v1.vhd" --seed "$www/host" "$url/v2.ckm"
	[[ $output == *"to fetch: "*" in "*"range"* ]]
	[[ $output == *"/host"* ]]
}

@test "an existing OUT is a seed, and its index is kept for the next time" {
	use_series
	nginx_serve "$www"
	ckm-fetch -q -o out.vhd "$url/v1.ckm"
	same_guest "$www/v1.vhd" out.vhd
	[ -n "$(ls "$XDG_CACHE_HOME"/prep/*.index)" ]
	run -0 ckm-fetch -f --json -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	[ "$(field fetched_bytes)" -lt $((frames / 4)) ]
	run -0 ckm-fetch -f --json -o out.vhd "$url/v2.ckm"
	[ "$(field frames)" = 0 ]
	[ "$(field requests)" = 1 ]
	echo nothing >other.vhd
	run -0 ckm-fetch -f -o other.vhd "$url/v1.ckm"
	same_guest "$www/v1.vhd" other.vhd
}

@test "formats, file URLs, pre-staged packages, difference packages" {
	use_series
	run -0 ckm-fetch --to raw -o out.raw "file://$www/v1.ckm"
	same_guest "$www/v1.vhd" out.raw
	bad "$www"
	run -0 ckm-fetch --json --package "$www/v1.ckm" -o a.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" a.vhd
	[ "$(field fetched_bytes)" -lt $((frames / 4)) ]
	mkdir staged
	cp "$www/v2.ckm" "$www/v1.ckm" staged
	echo nothing >staged/x.ckm
	run -0 ckm-fetch --json --package staged -o b.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" b.vhd
	run -0 ckm-fetch -q --json --package staged -f -o b.vhd "$url/v2.ckm"
	[ "$(field frames)" = 0 ]
	run -3 ckm-fetch -o c.vhd "$url/v2d.ckm"
	[[ $output == *"difference package"* ]]
	run -0 ckm-fetch --seed "$www/v1.vhd" -o c.vhd "$url/v2d.ckm"
	same_guest "$www/v2.vhd" c.vhd
	run -1 ckm-fetch -o d.vhd "file://$www/none.ckm"
	[ ! -e d.vhd ] && [ ! -e d.vhd.part ]
}

@test "JSON, whatever the bytes of the URL" {
	use_series
	for name in 'a"b\' $'not utf-8 \xff'; do
		mkdir "$name"
		ln -s "$www/v1.ckm" "$www/v1.ckm.index" "$name"
		ckm-fetch -n --json "file://$PWD/${name// /%20}/v1.ckm" | jq -es '.[0].url' >/dev/null
		ckm-unpack -n --json --seed "$name/v1.ckm" "$name/v1.ckm" | jq -es '.[0].seeds[0].path' >/dev/null
	done
}

@test "TLS, by HTTP/2; a certificate that is not trusted is refused" {
	use_series
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=images -addext subjectAltName=IP:127.0.0.1 \
		-keyout key.pem -out cert.pem 2>/dev/null
	nginx_serve "$www" "ssl_certificate $PWD/cert.pem; ssl_certificate_key $PWD/key.pem; limit_rate 8m;
		location /plain/ { return 302 http://127.0.0.1:1/; }" "ssl http2"
	run -0 ckm-fetch --cacert cert.pem -o out.vhd "https${url#http}/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	grep -q 'HTTP/2.0' ng/access.log
	run -1 ckm-fetch --cacert cert.pem -o other.vhd "https${url#http}/plain/v2.ckm"
	[[ $output == *"redirect that is not followed"* ]]
	run -1 ckm-fetch -o other.vhd "https${url#http}/v2.ckm"
	# A system without ca-certificates trusts nobody, for another reason.
	[[ $output == *"certificate is not accepted: self-signed certificate (--cacert)" ||
		$output == *"certificates to trust cannot be read"*"ca-certificates)" ]]
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=another -keyout other.key -out other.pem 2>/dev/null
	run -1 ckm-fetch --cacert other.pem -o other.vhd "https${url#http}/v2.ckm"
	[[ $output == *"certificate is not accepted: self-signed certificate (--cacert)" ]]
	run -1 ckm-fetch --cacert other.key -o other.vhd "https${url#http}/v2.ckm"
	[[ $output == *"certificates to trust cannot be read"* ]]
	url=${url/127.0.0.1/localhost}
	run -1 ckm-fetch --cacert cert.pem -o other.vhd "https${url#http}/v2.ckm"
	[[ $output == *"certificate is not accepted: it is for another name (--cacert)" ]]
	[ ! -e other.vhd ]
}

@test "who you are: password file and netrc; never in a URL" {
	use_series
	printf 'me:%s\n' "$(openssl passwd -apr1 secret)" >users
	nginx_serve "$www" "auth_basic here; auth_basic_user_file $PWD/users;"
	echo secret >pass
	echo wrong >badpass
	run -1 ckm-fetch -o out.vhd "$url/v2.ckm"
	[[ $output == *401* ]]
	run -1 ckm-fetch --user me --password-file badpass -o out.vhd "$url/v2.ckm"
	[[ $output == *401* ]]
	run -2 ckm-fetch -o out.vhd "http://me:secret@${url#http://}/v2.ckm"
	[[ $output == *password* ]]
	run -0 ckm-fetch --user me --password-file pass -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	run -0 ckm-fetch --auth basic --user me --password-file pass -n "$url/v2.ckm"
	printf 'machine 127.0.0.1 login me password secret\n' >netrc
	run -0 ckm-fetch --netrc-file netrc -o other.vhd "$url/v2.ckm"
	cmp out.vhd other.vhd
}

@test "who you are: Digest, and NTLM on each connection; a scheme that does not help is told" {
	use_series
	echo secret >pass
	echo wrong >badpass
	for scheme in digest ntlm; do
		bad --$scheme me:secret "$www"
		run -0 ckm-fetch --user me --password-file pass -o $scheme.vhd "$url/v2.ckm"
		same_guest "$www/v2.vhd" $scheme.vhd
		run -0 ckm-fetch --auth $scheme --user me --password-file pass -n "$url/v2.ckm"
		run -1 ckm-fetch --auth $scheme --user me --password-file badpass -o x.vhd "$url/v2.ckm"
		[[ $output == *401* ]]
		run -1 ckm-fetch --auth basic --user me --password-file pass -o x.vhd "$url/v2.ckm"
		[[ $output == *"by $scheme"*401* ]]
	done
	bad --offer Negotiate "$www"
	run -1 ckm-fetch --auth negotiate -o x.vhd "$url/v2.ckm"
	[[ $output == *"by negotiate"*401* ]]
	[ ! -e x.vhd ] && [ ! -e x.vhd.part ]
}

# A realm with one user, whose ticket is in ./cc, and a server that knows tickets alone.
kerberos_serve() {
	local kdc web modules=/usr/lib/apache2/modules
	mkdir krb
	cat >krb/kdc.conf <<-CONF
		[realms]
		TEST.EXAMPLE = {
		database_name = $PWD/krb/principal
		key_stash_file = $PWD/krb/stash
		}
	CONF
	export KRB5_CONFIG=$PWD/krb/krb5.conf KRB5_KDC_PROFILE=$PWD/krb/kdc.conf KRB5CCNAME=$PWD/cc
	for _ in $(seq 20); do
		kdc=$((20000 + RANDOM % 30000))
		web=$((kdc + 1))
		cat >krb/krb5.conf <<-CONF
			[libdefaults]
			default_realm = TEST.EXAMPLE
			dns_lookup_kdc = false
			rdns = false
			dns_canonicalize_hostname = false
			[realms]
			TEST.EXAMPLE = {
			kdc = 127.0.0.1:$kdc
			}
		CONF
		cat >krb/apache.conf <<-CONF
			ServerRoot $PWD/krb
			ServerName localhost
			PidFile pid
			Mutex file:$PWD/krb
			Listen 127.0.0.1:$web
			ErrorLog error.log
			LoadModule mpm_event_module $modules/mod_mpm_event.so
			LoadModule authn_core_module $modules/mod_authn_core.so
			LoadModule authz_core_module $modules/mod_authz_core.so
			LoadModule authz_user_module $modules/mod_authz_user.so
			LoadModule auth_gssapi_module $modules/mod_auth_gssapi.so
			LogFormat "%u %>s" brief
			CustomLog access.log brief
			DocumentRoot $1
			<Location />
			AuthType GSSAPI
			GssapiCredStore keytab:$PWD/krb/keytab
			Require valid-user
			</Location>
		CONF
		[ -e krb/principal ] || kdb5_util create -s -P master -r TEST.EXAMPLE >/dev/null 2>&1
		[ -e krb/keytab ] || printf '%s\n' 'addprinc -pw secret me' 'addprinc -randkey HTTP/localhost' \
			"ktadd -k $PWD/krb/keytab HTTP/localhost" | kadmin.local >/dev/null 2>&1
		chmod 644 krb/keytab
		krb5kdc -n -p "$kdc" >/dev/null 2>&1 3>&- &
		servers+=($!)
		apache2 -X -f "$PWD/krb/apache.conf" >/dev/null 2>&1 3>&- &
		servers+=($!)
		for _ in $(seq 50); do
			! { echo secret | kinit me >/dev/null 2>&1 && curl -s -o /dev/null "http://localhost:$web/"; } || break 2
			kill -0 "${servers[-1]}" 2>/dev/null || break
			sleep 0.1
		done
	done
	url=http://localhost:$web
}

@test "who you are: a Kerberos ticket" {
	skip_without krb5kdc kdb5_util kadmin.local kinit apache2 curl
	[ -e /usr/lib/apache2/modules/mod_auth_gssapi.so ] || skip 'no mod_auth_gssapi'
	use_series
	kerberos_serve "$www"
	run -0 ckm-fetch --auth negotiate -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	grep -q '^me@TEST.EXAMPLE 206' krb/access.log
	run -1 ckm-fetch -o x.vhd "$url/v2.ckm"
	[[ $output == *"by negotiate"*"a Kerberos ticket and --auth negotiate"*401* ]]
	KRB5CCNAME=$PWD/none run -1 ckm-fetch --auth negotiate -o x.vhd "$url/v2.ckm"
	[[ $output == *401* ]]
}

@test "redirects are followed, to the web alone" {
	use_series
	nginx_serve "$www" "location /old/ { rewrite ^/old/(.*)\$ /\$1 redirect; }
		location /out/ { return 302 file:///etc/passwd; } location /round/ { return 302 /round/; }"
	run -0 ckm-fetch -o out.vhd "$url/old/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	run -1 ckm-fetch -o x.vhd "$url/out/v2.ckm"
	[[ $output == *"redirect that is not followed"* ]]
	run -1 ckm-fetch -o x.vhd "$url/round/v2.ckm"
	[[ $output == *"redirect that is not followed"* ]]
	[ ! -e x.vhd ]
}

@test "a server without ranges is read in one pass" {
	use_series
	nginx_serve "$www" "max_ranges 0;"
	run -0 ckm-fetch --json -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	run -0 ckm-fetch --json --seed "$www/v1.vhd" -o other.vhd "$url/v2.ckm"
	cmp out.vhd other.vhd
}

@test "what a seed promised in vain is asked for when the rest is here" {
	use_series
	nginx_serve "$www"
	cp "$www/v1.ckm" spoilt.ckm
	# in the midst of what both versions have
	poke spoilt.ckm 3000000 0badc0de
	poke spoilt.ckm 9000000 0badc0de
	run -0 ckm-fetch --json --seed spoilt.ckm -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	[ "$(field bad_chunks)" -gt 0 ]
	[ "$(field local_chunks)" -gt 0 ]
	[ "$(field fetched_bytes)" -lt $((frames * 3 / 4)) ]
	[ "$(field fetched_bytes)" = "$(awk '{ s += $(NF - 1) } END { print s }' ng/access.log)" ]
	# a server that gives nothing but the whole gives it twice
	nginx_serve "$www" "max_ranges 0;"
	run -0 ckm-fetch --json --seed spoilt.ckm -o other.vhd "$url/v2.ckm"
	[ "$(field bad_chunks)" -gt 0 ]
	cmp out.vhd other.vhd
}

@test "by a proxy" {
	use_series
	nginx_serve "$www" "resolver 127.0.0.1; location / { proxy_pass http://\$http_host\$request_uri; }"
	proxy=$url
	bad "$www"
	run -0 ckm-fetch --proxy "$proxy" -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	grep -q v2.ckm.index ng/access.log
	http_proxy=$proxy run -0 ckm-fetch -n "$url/v2.ckm"
	[ "$(wc -l <ng/access.log)" -gt 3 ]
}

# ---- Bad ones ----

@test "connections that are reset go on where they were" {
	use_series
	bad --cut 300000 "$www"
	run -0 ckm-fetch --json -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	[ "$(field retries)" -gt 20 ]
	[ "$(field fetched_bytes)" -lt $((frames + frames / 20 + $(field index_size))) ]
}

@test "an index that comes in pieces" {
	use_series
	bad --only .index --cut 9000 "$www"
	run -0 ckm-fetch --json -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	[ "$(field index_bytes)" = "$(stat -c %s "$www/v2.ckm.index")" ]
}

@test "short bodies, and lengths that are lies" {
	use_series
	bad --short 1000 --times 4 "$www"
	run -0 ckm-fetch -o a.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" a.vhd
	bad --length 5000 "$www"
	run -0 ckm-fetch -o b.vhd "$url/v2.ckm"
	cmp a.vhd b.vhd
	bad --length -5000 --times 4 "$www"
	run -0 ckm-fetch -o c.vhd "$url/v2.ckm"
	cmp a.vhd c.vhd
	bad --endless "$www"
	run -0 ckm-fetch -o d.vhd "$url/v2.ckm"
	cmp a.vhd d.vhd
}

@test "ranges that are others than asked for, and packages of another size" {
	use_series
	bad --shift 100 "$www"
	run -4 ckm-fetch -o a.vhd "$url/v2.ckm"
	[[ $output == *"another range"* ]]
	bad --total 10 "$www"
	run -4 ckm-fetch -o b.vhd "$url/v2.ckm"
	[[ $output == *"another size"* ]]
	[ ! -e a.vhd ] && [ ! -e b.vhd ]
}

@test "a damaged frame is fetched once more, a second time is an error that names it" {
	use_series
	bad --flip 1 "$www"
	run -0 ckm-fetch --json -o a.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" a.vhd
	bad --flip 100000 "$www"
	run -4 ckm-fetch -o b.vhd "$url/v2.ckm"
	[[ $output == *"frame "*" is damaged"*"once more"* ]]
	[ ! -e b.vhd ]
	bad --only .index --flip 1 "$www"
	run -0 ckm-fetch -o c.vhd "$url/v2.ckm"
	cmp a.vhd c.vhd
	bad --only .index --flip 1000 "$www"
	run -4 ckm-fetch -o d.vhd "$url/v2.ckm"
	[ ! -e d.vhd ] && [ ! -e d.vhd.part ]
}

@test "answers that say no: each has its message" {
	use_series
	for code in 401 403 404 410 416; do
		bad --status $code "$www"
		run -1 ckm-fetch -o x.vhd "$url/v2.ckm"
		[[ $output == *"$url/v2.ckm: "*"(status $code)"* ]]
		bad --only .index --status $code "$www"
		run -1 ckm-fetch -o y.vhd "$url/v2.ckm"
		[[ $output == *"$url/v2.ckm.index: "*"(status $code)"* ]]
		[ ! -e y.vhd.part ]
	done
	for code in 500 503 429; do
		bad --status $code --times 2 "$www"
		run -0 ckm-fetch -f -o x.vhd "$url/v2.ckm"
		bad --status $code "$www"
		run -1 ckm-fetch --retries 1 -o z.vhd "$url/v2.ckm"
		[[ $output == *"(status $code)"* ]]
	done
	run -1 ckm-fetch --retries 1 -o z.vhd "http://127.0.0.1:1/v2.ckm"
	[[ $output == *onnect* ]]
}

@test "a server asks to come back later" {
	use_series
	bad --status 503 --times 1 --retry-after 2 "$www"
	start=$(date +%s)
	run -0 ckm-fetch --connections 1 -o x.vhd "$url/v2.ckm"
	[ $(($(date +%s) - start)) -ge 2 ]
}

@test "a server that says nothing is given up" {
	use_series
	bad --hang "$www"
	run -1 timeout $((60 * slower)) ckm-fetch --timeout 1 --retries 1 -o x.vhd "$url/v2.ckm"
	[[ $output == *"sends nothing"* ]]
	[ ! -e x.vhd ]
}

@test "an index without end, and one that is none" {
	use_series
	bad --only .index --length -100 "$www"
	run -4 ckm-fetch -o x.vhd "$url/v2.ckm"
	mkdir hostile
	cp "$www/v1.vhd" hostile/v2.ckm.index
	echo x >hostile/v2.ckm
	bad hostile
	run -3 ckm-fetch -o x.vhd "$url/v2.ckm"
	# the page of a gate, and nothing at all
	for text in '<html>Who are you?</html>' ''; do
		printf '%s' "$text" >hostile/v2.ckm.index
		run -3 ckm-fetch -o x.vhd "$url/v2.ckm"
		[[ $output == *"not a CKM index"* ]]
	done
	# the index of another package, and a package of other content
	cp "$www/v1.ckm.index" hostile/v2.ckm.index
	cp "$www/v2.ckm" hostile/v2.ckm
	run -4 ckm-fetch -o x.vhd "$url/v2.ckm"
	[[ $output == *"not the package that its index describes"* ]]
	head -c "$(stat -c %s "$www/v1.ckm")" /dev/zero >hostile/v2.ckm
	run -4 ckm-fetch -o x.vhd "$url/v2.ckm"
	[[ $output == *"frame "*damaged* ]]
	[ ! -e x.vhd ]
}

@test "a package that changes meanwhile: the new one, or an error, never a mix" {
	use_series
	mkdir new
	cp "$www/v3.ckm" new/v2.ckm
	cp "$www/v3.ckm.index" new/v2.ckm.index
	for how in "" --no-etag "--no-range --short 24000000 --times 1"; do
		# shellcheck disable=SC2086
		bad $how --swap new --after 90000 "$www"
		run -0 ckm-fetch -f --json -o out.vhd "$url/v2.ckm"
		[ "$(field restarts)" = 1 ]
		same_guest "$www/v3.vhd" out.vhd
		rm out.vhd
	done
	# the package alone, its index as before: damaged
	cp "$www/v2.ckm.index" new/v2.ckm.index
	bad --swap new --after 90000 "$www"
	run -4 ckm-fetch -o x.vhd "$url/v2.ckm"
	[ ! -e x.vhd ]
	# between two runs
	bad --cut 3000000 --times 1 "$www"
	timeout --foreground -s KILL 0.2 ckm-fetch -q --limit-rate 4M -o y.vhd "$url/v2.ckm" || true
	cp "$www/v3.ckm.index" new/v2.ckm.index
	bad new
	run -0 ckm-fetch -o y.vhd "$url/v2.ckm"
	same_guest "$www/v3.vhd" y.vhd
}

@test "versions that are told differently by each server do no harm" {
	use_series
	bad --etags 1 "$www"
	run -0 ckm-fetch --json -o x.vhd "$url/v2.ckm"
	[ "$(field restarts)" = 0 ]
	same_guest "$www/v2.vhd" x.vhd
}

# ---- Going on ----

# --foreground: timeout waits for what it killed, which has its lock until it is gone.
@test "killed at many points, nothing is fetched twice but what was in flight" {
	use_series
	bad --rate 5000000 "$www"
	for _ in $(seq 8); do
		timeout --foreground -s KILL "0.$((100 + RANDOM % 300))" ckm-fetch -q -o out.vhd "$url/v2.ckm" || true
		[ ! -e out.vhd ] || break
	done
	# fast enough, the last of them has finished it
	run -0 ckm-fetch -f --json -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	[ ! -e out.vhd.part ]
	sleep 0.3
	# what 4 sockets and their reader held when it was killed, 8 times; a frame alone has more
	[ "$(sent)" -lt $((frames + 8 * 4 * 65536)) ]
	[ "$(awk '$1 == "v2.ckm.index" && $3 == 200' log | wc -l)" -le 8 ]
}

@test "an interruption ends cleanly, and the next run goes on" {
	local rate=2000000 wait=0.7
	use_series
	! under_valgrind || { rate=200000 wait=7; }
	bad --rate $rate --times 4 "$www"
	run timeout -s INT $wait ckm-fetch -o out.vhd "$url/v2.ckm"
	[ ! -e out.vhd ]
	[ -d out.vhd.part ]
	sleep 0.3
	before=$(sent)
	[ "$before" -gt 100000 ]
	run -0 ckm-fetch --json -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	sleep 0.3
	[ "$(sent)" -lt $((frames + 4 * 65536)) ]
	[ "$(field index_bytes)" = 0 ]
}

@test "what a cut-off run left is not believed" {
	skip_under_valgrind 'it is killed before it has begun'
	use_series
	bad --rate 3000000 --times 4 "$www"
	timeout --foreground -s KILL 0.8 ckm-fetch -q -o out.vhd "$url/v2.ckm" || true
	[ -e out.vhd.part/disk ]
	for i in 0 300 700 1100 5000; do
		printf 'damage' | dd of=out.vhd.part/disk bs=4096 seek=$i conv=notrunc status=none
	done
	printf 'damage' | dd of=out.vhd.part/frames bs=1 seek=70 conv=notrunc status=none
	echo '{' >out.vhd.part/state
	run -0 ckm-fetch -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
	# nor another format
	bad --rate 3000000 --times 4 "$www"
	timeout --foreground -s KILL 0.8 ckm-fetch -q -o b.vhd "$url/v2.ckm" || true
	[ -e b.vhd.part/disk ]
	run -0 ckm-fetch --to raw -o b.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" b.vhd
}

@test "two at once: the second is refused" {
	use_series
	bad --rate 1000000 --times 4 "$www"
	ckm-fetch -q -o out.vhd "$url/v2.ckm" 3>&- &
	first=$!
	while [ ! -e out.vhd.part/disk ]; do sleep 0.05; done
	run -3 ckm-fetch -o out.vhd "$url/v2.ckm"
	[[ $output == *"another process"* ]]
	kill "$first"
	wait "$first" || true
	run -0 ckm-fetch -o out.vhd "$url/v2.ckm"
	same_guest "$www/v2.vhd" out.vhd
}

@test "out of disk: an error, and it goes on when there is room" {
	use_series
	skip_without unshare
	unshare -rm true 2>/dev/null || skip "no name spaces here"
	bad "$www"
	unshare -rm sh -c "
		mkdir small && mount -t tmpfs -o size=6m none small || exit 99
		ckm-fetch --no-cache -o small/x.vhd $url/v2.ckm 2>first; echo \$? >one
		mount -o remount,size=200m small
		# filled up behind its back
		dd if=/dev/zero of=small/fill bs=1M count=190 status=none 2>/dev/null
		ckm-fetch --no-cache -o small/x.vhd $url/v2.ckm 2>second; echo \$? >two
		rm small/fill
		ckm-fetch --no-cache -q -o small/x.vhd $url/v2.ckm && cp small/x.vhd . ; ls -A small >left" || true
	[ "$(cat one)" = 1 ]
	grep -q 'not enough free space' first
	[ "$(cat two)" = 1 ]
	same_guest "$www/v2.vhd" x.vhd
	[ "$(cat left)" = x.vhd ]
}

# ---- Manners ----

@test "no faster than it may be" {
	use_series
	bad "$www"
	bytes=$(stat -c %s "$www/v2.ckm")
	start=$(date +%s%N)
	run -0 ckm-fetch --limit-rate $((bytes / 4)) -o x.vhd "$url/v2.ckm"
	[ $((($(date +%s%N) - start) / 1000000)) -ge 3000 ]
	same_guest "$www/v2.vhd" x.vhd
	# libcurl cannot pause what it reads from a file
	start=$(date +%s%N)
	run -0 ckm-fetch --limit-rate $((bytes / 2)) -o y.vhd "file://$www/v2.ckm"
	[ $((($(date +%s%N) - start) / 1000000)) -ge 1000 ]
	same_guest "$www/v2.vhd" y.vhd
}

@test "in the background: the lowest priorities, and the same image" {
	use_series
	bad --rate 4000000 --times 1 "$www"
	ckm-fetch -q --background -o x.vhd "$url/v2.ckm" 3>&- &
	pid=$!
	sleep 1
	[ "$(awk '{ print $19 }' "/proc/$pid/stat")" = 19 ]
	# SCHED_IDLE is policy 5
	[ "$(awk '{ print $41 }' "/proc/$pid/stat")" = 5 ]
	if command -v ionice >/dev/null; then ionice -p "$pid" | grep -q idle; fi
	wait "$pid"
	same_guest "$www/v2.vhd" x.vhd
}

@test "sealed and signed" {
	use_series
	openssl genpkey -algorithm X25519 -out key.pem
	openssl pkey -in key.pem -pubout -out pub.pem
	openssl genpkey -algorithm ED25519 -out sign.pem
	openssl pkey -in sign.pem -pubout -out signpub.pem
	mkdir sealed
	ckm-pack -q -1 --recipient pub.pem --sign sign.pem -o sealed/v1.ckm "$www/v1.vhd"
	bad sealed
	run -3 ckm-fetch -o x.vhd "$url/v1.ckm"
	run -3 ckm-fetch --key key.pem --verify-with pub.pem -o x.vhd "$url/v1.ckm"
	[ ! -e x.vhd ] && [ ! -e x.vhd.part ]
	run -0 ckm-fetch --key key.pem --verify-with signpub.pem --json -o x.vhd "$url/v1.ckm"
	[ "$(field verified)" = true ]
	same_guest "$www/v1.vhd" x.vhd
}

@test "usage" {
	run -2 ckm-fetch
	run -2 ckm-fetch -o x
	run -2 ckm-fetch http://127.0.0.1/x.ckm
	run -2 ckm-fetch -o - http://127.0.0.1/x.ckm
	run -2 ckm-fetch -o x http://127.0.0.1/x.ckm y
	run -2 ckm-fetch -o x ftp://127.0.0.1/x.ckm
	run -2 ckm-fetch -o x /just/a/path.ckm
	run -2 ckm-fetch -o x 'file:///a folder/x.ckm'
	[[ $output == *': a space in it is written %20' ]]
	run -2 ckm-fetch -o x http://127.0.0.1/
	run -2 ckm-fetch --auth secret -o x http://127.0.0.1/x.ckm
	run -2 ckm-fetch --limit-rate 0 -o x http://127.0.0.1/x.ckm
	run -2 ckm-fetch --password-file f -o x http://127.0.0.1/x.ckm
	run -1 ckm-fetch --netrc-file nowhere -o x http://127.0.0.1/x.ckm
	[[ $output == *'nowhere: cannot read'* ]]
	[ ! -e x.part ]
}

@test "what cannot be the output is told at once, and nothing stands beside it" {
	use_series
	mkdir folder
	ln -s nothing link
	mkfifo pipe
	for out in folder link pipe; do
		run -3 ckm-fetch -f -o "$out" "file://$www/v1.ckm"
		[[ $output == *"$out: "* ]]
	done
	run -3 ckm-fetch -f -o /dev/null "file://$www/v1.ckm"
	[[ $output == *'/dev/null: not a regular file'* ]]
	[ "$(echo -- *.part)" = '-- *.part' ]
}

@test "another URL to the same OUT, and a server that went back: what was asked for, never what was there before" {
	use_series
	skip_without python3
	mkdir web
	cp "$www"/v[12].ckm "$www"/v[12].ckm.index web
	touch -d 2026-11-01 web/v1.ckm*
	touch -d 2026-11-20 web/v2.ckm*
	cp -p web/v2.ckm web/gold.ckm
	cp -p web/v2.ckm.index web/gold.ckm.index
	# it tells dates and no ETag, and says "not modified" of what is older than asked for
	python3 -u -m http.server --bind 127.0.0.1 --directory web 0 >port 2>/dev/null 3>&- &
	servers+=($!)
	for _ in $(seq 250); do
		[ ! -s port ] || break
		sleep 0.02
	done
	url=http://127.0.0.1:$(sed -n 's/.* port \([0-9]*\) .*/\1/p' port)
	for name in v2 gold; do
		run -1 ckm-fetch --seed none -o out.vhd "$url/$name.ckm"
		[ -e out.vhd.part/index ]
		if [ "$name" = gold ]; then
			cp -p web/v1.ckm web/gold.ckm
			cp -p web/v1.ckm.index web/gold.ckm.index
		else
			name=v1
		fi
		ckm-fetch -q --seed "$www/v2.vhd" -o out.vhd "$url/$name.ckm"
		same_guest "$www/v1.vhd" out.vhd
		rm out.vhd
	done
}

@test "no room for another index: the next run does not take the old one for it" {
	use_series
	mkdir web small
	mount -t tmpfs -o size=140m none small 2>/dev/null || skip "cannot mount a tmpfs"
	ln -s "$www/v1.ckm" web/gold.ckm
	ln -s "$www/v1.ckm.index" web/gold.ckm.index
	bad web
	run -1 ckm-fetch --seed none -o small/out.vhd "$url/gold.ckm"
	ln -sf "$www/v2.ckm" web/gold.ckm
	ln -sf "$www/v2.ckm.index" web/gold.ckm.index
	head -c 200m /dev/zero >small/fill 2>/dev/null || true
	truncate -s -24K small/fill
	run -1 ckm-fetch -o small/out.vhd "$url/gold.ckm"
	rm small/fill
	run -0 ckm-fetch --seed "$www/v1.vhd" -o small/out.vhd "$url/gold.ckm"
	same_guest "$www/v2.vhd" small/out.vhd
	umount small
}

@test "an OUT on which an undo disk stands, or that is in use, is not replaced" {
	use_series
	cp "$www/v1.vhd" base.vhd
	vhd-undo create -q base.vhd undo.vhd
	run -3 ckm-fetch -f -o base.vhd "file://$www/v2.ckm"
	[[ $output == *"undo disk"* ]]
	run -3 ckm-index -f -o base.vhd "$www/host"
	cmp "$www/v1.vhd" base.vhd
	[ ! -e base.vhd.part ]
	cp "$www/v1.vhd" used.vhd
	hold used.vhd
	run -3 ckm-fetch -f -o used.vhd "file://$www/v2.ckm"
	release
	[[ $output == *"in use"* ]]
}

@test "in the background: others are seen through the sandbox" {
	use_series
	skip_without strace
	bad --rate 8000000 "$www"
	strace -f -e trace=openat,socket -o calls "$build/cmd/ckm-fetch" -q --background -o x.vhd "$url/v2.ckm"
	grep -q '"/sys/class/net/lo/statistics/rx_bytes".* = [0-9]' calls
}

@test "a folder OUT.part that is somebody's trap" {
	use_series
	[ "$(id -u)" = 0 ] || skip "not root"
	mkdir -m 1777 open
	echo precious >open/mine
	mkdir open/out.vhd.part
	ln -s ../mine open/out.vhd.part/state
	ckm-fetch -q -o open/out.vhd "file://$www/v1.ckm"
	[ "$(cat open/mine)" = precious ]
	mkdir open/b.vhd.part
	chown 12345 open/b.vhd.part
	run -3 ckm-fetch -o open/b.vhd "file://$www/v1.ckm"
}
