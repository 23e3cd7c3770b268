/* Answers from the kernel: what 127.0.0.11 is asked inside a container and what the tables know is answered here.
 *
 * The program is a tc classifier on the egress of the container's `lo`. A question on its way to 127.0.0.11:53 is
 * turned into its own answer: rewritten where it lies, addresses and ports swapped, and let go on. The route that it
 * carries delivers it to this host, so it arrives at whoever asked. All that cannot be answered for certain goes to
 * the resolver's sockets (`netd-dns`): port 53 is rewritten to theirs, and back in what they send. No state is kept
 * of that, and no connection is tracked.
 *
 * One loaded program serves every container: the classid of the filter that runs it is the number of the sandbox.
 * The maps are written by dns/kernel.py, which knows their layout too; it says what is in them and why. Whatever
 * they leave open is asked of the resolver, so a gap in them costs time, never a wrong answer.
 *
 * It uses nothing that came after Linux 5.10. The kernel proves before it loads the program that it stays within its
 * memory and ends; it can do so because of each BOUND, and refuses it without any one of them, which
 * tests/dns/test_kernel.py shows by leaving them out in turn.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

#define RESOLVER bpf_htonl(0x7f00000b) /* 127.0.0.11 */
#define DOMAIN bpf_htons(53)

#define NAME 80	  /* bytes of the longest name answered here, in wire form: enough for every ip6.arpa name */
#define SHORT 24  /* most names are not longer */
#define SEARCH 32 /* tables of a sandbox that are searched here; what only the others know is a miss */
#define IPV4S 16  /* addresses of a name that are kept here; one that has more is asked of the resolver */
#define IPV6S 8
#define TRIES 4	  /* to find a name while the maps change; then the resolver is asked */
#define POINTER 191 /* bytes of the longest name that an address points to */
#define ID 64	    /* bytes of the id of a network or a sandbox, for whoever adopts the maps */

/* ---- maps ------------------------------------------------------------------------------------------------------ */

enum { NETWORK, QUALIFIED, LINKS }; /* kinds of tables: names, names with the network's behind, a sandbox's links */

struct key {
	__u16 number; /* of the network, or of the sandbox if the table holds links */
	__u8 kind;
	__u8 length; /* of the name: "\0" at its end and the zeros behind must not be mixed up */
	__u32 zero;
	union {
		__u8 name[NAME]; /* in wire form, folded to lower case, zeros behind */
		__u64 words[NAME / 8];
	};
};

enum { ASK, ADDRESSES, POINTS, LINK }; /* what is known of a name; ASK: the resolver knows more */
#define TOO_MANY 255		       /* as a number of addresses: the resolver knows them */

struct answer {
	__be32 ttl;
	__u8 kind;
	__u8 ipv4s, ipv6s;
	__u8 nodata; /* it has no records of further types; else they are asked of the resolver */
	union {
		struct {
			__u8 ipv4[IPV4S][4];
			__u8 ipv6[IPV6S][16];
		};
		struct {
			__u8 size;
			__u8 pointer[POINTER];
		};
		struct key link; /* the same answer as that name's */
	};
};

struct sandbox {
	__be16 udp, tcp; /* where its sockets listen */
	__u16 count;
	__u16 zero;
	struct {
		__u16 number;
		__u8 kind;
		__u8 zero;
	} search[SEARCH]; /* in this order; the first table that knows the name answers */
	char id[ID];
};

struct table {
	__u32 open; /* it may know names that are not here (wildcards): no later table may answer for it */
	char id[ID];
};

struct event {
	__u64 time, spent; /* ns: when it came, since boot; how long it took */
	__be32 client;
	__u16 number; /* of the sandbox */
	__u16 type;
	__u8 records;
	__u8 length;
	__u8 name[NAME]; /* as spelled */
};

struct settings {
	__u64 owner[3]; /* whose maps these are, for whoever adopts them */
	__u32 followed; /* somebody follows the log: only then is anything written to it */
	__u32 removals; /* goes up after whatever is taken out of a map, or replaced, and before anything is put in */
};

enum { ANSWERED, PASSED, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);
	__type(key, struct key);
	__type(value, struct answer);
} netd_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, struct sandbox);
} netd_sandboxes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 12);
	__type(key, __u32);
	__type(value, struct table);
} netd_tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} netd_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} netd_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} netd_log SEC(".maps");

/* Room for an answer while it is worked with: a program's stack is small. Nothing can come in between, since packets
 * are sent with softirqs disabled.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} netd_scratch SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&netd_counters, &which);

	if (counter)
		(*counter)++;
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

enum { A = 1, SOA = 6, PTR = 12, AAAA = 28, OPT = 41, IN = 1 };

struct dns {
	__be16 id, flags, questions, answers, authorities, additionals;
};
#define QR bpf_htons(0x8000)
#define OPCODE bpf_htons(0x7800)
#define RA bpf_htons(0x0080)
#define RD_CD bpf_htons(0x0110) /* what a reply repeats of the question's flags */

#define MESSAGE (ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr))
#define QUESTION (MESSAGE + sizeof(struct dns))

struct question_end {
	__be16 type, class;
};

struct edns { /* RFC 6891 section 6.1.2 */
	__u8 root;
	__be16 type, size;
	__u8 rcode, version;
	__be16 flags, length;
} __attribute__((packed));
#define DO bpf_htons(0x8000)
#define COOKIE 12 /* bytes of the option that dig and c-ares send: RFC 7873 section 4 */

struct record {
	__be16 owner, type, class;
	__be32 ttl;
	__be16 size;
	__u8 data[16];
} __attribute__((packed));
#define RECORD offsetof(struct record, data)

struct soa { /* RFC 6303 section 3 */
	__be16 owner, type, class;
	__be32 ttl;
	__be16 size;
	__be16 zone;
	__u8 mailbox[16];
	__be32 serial, refresh, retry, expire, minimum;
} __attribute__((packed));

#define OWNER bpf_htons(0xc00c) /* a compression pointer to the question's name */

/* Fold eight bytes to lower case at once (RFC 4343). Lengths of labels are below 'A', so they stay. */
static __always_inline __u64 folded(__u64 word)
{
	const __u64 each = 0x0101010101010101;
	__u64 seven = word & each * 0x7f;
	__u64 from_a = seven + each * (0x80 - 'A'), past_z = seven + each * (0x7f - 'Z');

	return word | ((from_a ^ past_z) & ~word & each * 0x80) >> 2;
}

/* The compiler forgets what it knows of a number: else it leaves out a check that the kernel needs, or makes one of
 * two, on another number, from which the kernel learns nothing.
 */
#define FORGET(number) asm volatile("" : "+r"(number))
#define WITHIN(number, most)                      \
	({                                        \
		FORGET(number);                   \
		bool within = (number) <= (most); \
		FORGET(number);                   \
		within && (number) >= 1;          \
	})

/* A check without which the kernel refuses the program: -DWITHOUT=n leaves the n-th out. */
#ifndef WITHOUT
#define WITHOUT 0
#endif
#define BOUND(n, check) (WITHOUT == (n) || (check))

/* ---- a question and its answer --------------------------------------------------------------------------------- */

struct query {
	__u64 length; /* of the name */
	__u16 type;
	__be16 flags;
	bool edns;
	__be16 edns_flags;
};

/* Read a question of the plain kind: one name, class IN, nothing else or one OPT of version 0. Where the OPT is
 * follows from the length of the message, and where the name ends from that: if the bytes in between are a name of
 * the tables, length included, then that is how they must be read, whatever else they might have been.
 */
static __always_inline bool parse(struct __sk_buff *skb, struct query *query, struct key *key)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct udphdr *udp = data + ETH_HLEN + sizeof(struct iphdr);
	struct dns *dns = data + MESSAGE;
	struct question_end *end;
	struct edns edns;
	__u64 length = skb->len - QUESTION - sizeof(*end);
	__be16 additionals;

	if (!BOUND(2, (void *)(dns + 1) <= data_end))
		return false;
	additionals = dns->additionals;
	query->flags = dns->flags;
	if (query->flags & (QR | OPCODE) || dns->questions != bpf_htons(1) || dns->answers || dns->authorities ||
	    udp->len != bpf_htons(skb->len - ETH_HLEN - sizeof(struct iphdr)))
		return false;

	query->edns = additionals == bpf_htons(1);
	if (query->edns) {
		__u32 options = 0;

		if (bpf_skb_load_bytes(skb, skb->len - sizeof(edns), &edns, sizeof(edns)))
			return false;
		if (edns.root || edns.type != bpf_htons(OPT) || edns.length) {
			options = COOKIE;
			if (bpf_skb_load_bytes(skb, skb->len - COOKIE - sizeof(edns), &edns, sizeof(edns)))
				return false;
		}
		if (edns.root || edns.type != bpf_htons(OPT) || edns.version || edns.length != bpf_htons(options))
			return false;
		length -= sizeof(edns) + options;
		query->edns_flags = edns.flags & DO;
	} else if (additionals) {
		return false;
	}

	if (!BOUND(3, WITHIN(length, NAME)) || bpf_skb_load_bytes(skb, QUESTION, key->name, length))
		return false;
	end = data + QUESTION + length;
	if (!BOUND(4, (void *)(end + 1) <= data_end) || end->class != bpf_htons(IN))
		return false;
	query->length = key->length = length;
	query->type = bpf_ntohs(end->type);
#pragma unroll
	for (int i = 0; i < SHORT / 8; i++)
		key->words[i] = folded(key->words[i]);
	if (length <= SHORT)
		return true;
#pragma unroll
	for (int i = SHORT / 8; i < NAME / 8; i++)
		key->words[i] = folded(key->words[i]);
	return true;
}

/* Find what the sandbox's tables know of the name, and copy it; false if the resolver has to be asked. */
static __always_inline bool find(struct sandbox *sandbox, struct key *key, struct answer *answer)
{
	struct answer *found = NULL;

	for (int i = 0; BOUND(5, i < SEARCH) && i < sandbox->count; i++) {
		struct table *table;
		__u32 which = sandbox->search[i].number;

		key->number = which;
		key->kind = sandbox->search[i].kind;
		found = bpf_map_lookup_elem(&netd_names, key);
		if (found)
			break;
		if (key->kind == LINKS)
			continue;
		table = bpf_map_lookup_elem(&netd_tables, &which);
		if (!table || table->open)
			return false;
	}
	if (!found)
		return false;
	if (found->kind == LINK) {
		*key = found->link;
		found = bpf_map_lookup_elem(&netd_names, key);
		if (!found || found->kind != ADDRESSES)
			return false;
	}
	*answer = *found;
	return true;
}

/* Put something at an offset of the packet, and count it. */
#define PUT(skb, at, from, size)                                     \
	({                                                           \
		if (bpf_skb_store_bytes((skb), (at), (from), (size), 0)) \
			return TC_ACT_SHOT;                          \
		(at) += (size);                                      \
	})

/* Make the packet the answer to its question. It has the room; headers and counts come last, when all is in it. */
static __always_inline int reply(struct __sk_buff *skb, struct query *query, struct answer *answer, __u32 records,
				 __u32 at)
{
	struct record record = { .owner = OWNER, .class = bpf_htons(IN), .ttl = answer->ttl };
	void *data, *data_end;
	struct iphdr *ip;
	struct udphdr *udp;
	struct dns *dns;
	__be32 address;
	__be16 port;
	__u32 sum;

	record.type = bpf_htons(query->type);
	if (!records) { /* RFC 2308 section 3: how long a client may remember that there is nothing */
		struct soa soa = {
			.owner = OWNER,
			.type = bpf_htons(SOA),
			.class = bpf_htons(IN),
			.ttl = answer->ttl,
			.size = bpf_htons(sizeof(soa) - offsetof(struct soa, zone)),
			.zone = OWNER,
			.mailbox = "\6nobody\7invalid",
			.serial = bpf_htonl(1),
			.refresh = bpf_htonl(3600),
			.retry = bpf_htonl(1200),
			.expire = bpf_htonl(604800),
			.minimum = answer->ttl,
		};

		PUT(skb, at, &soa, sizeof(soa));
	} else if (query->type == PTR) {
		__u64 size = answer->size;

		record.size = bpf_htons(size);
		PUT(skb, at, &record, RECORD);
		if (!BOUND(6, WITHIN(size, POINTER)))
			return TC_ACT_SHOT;
		PUT(skb, at, answer->pointer, size);
	} else {
		/* a random one comes first, the others follow in their order */
		__u32 which = records > 1 ? bpf_get_prandom_u32() % records : 0;

		for (int i = 0; i < IPV4S && i < records; i++) {
			if (query->type == A) {
				if (!BOUND(7, which < IPV4S))
					return TC_ACT_SHOT;
				record.size = bpf_htons(4);
				__builtin_memcpy(record.data, answer->ipv4[which], 4);
				PUT(skb, at, &record, RECORD + 4);
			} else {
				if (!BOUND(8, which < IPV6S))
					return TC_ACT_SHOT;
				record.size = bpf_htons(16);
				__builtin_memcpy(record.data, answer->ipv6[which], 16);
				PUT(skb, at, &record, RECORD + 16);
			}
			if (++which == records)
				which = 0;
		}
	}
	if (query->edns) {
		struct edns edns = { .type = bpf_htons(OPT), .size = bpf_htons(1232), .flags = query->edns_flags };

		PUT(skb, at, &edns, sizeof(edns));
	}

	data = (void *)(long)skb->data, data_end = (void *)(long)skb->data_end;
	ip = data + ETH_HLEN, udp = (void *)(ip + 1), dns = (void *)(udp + 1);
	if (!BOUND(9, (void *)(dns + 1) <= data_end))
		return TC_ACT_SHOT;
	address = ip->saddr, ip->saddr = ip->daddr, ip->daddr = address;
	port = udp->source, udp->source = udp->dest, udp->dest = port;
	/* RFC 1624; a UDP checksum is optional in IPv4, and this packet does not leave the host */
	sum = (__u16)~ip->check + (__u16)~ip->tot_len;
	ip->tot_len = bpf_htons(at - ETH_HLEN);
	sum += ip->tot_len;
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~((sum & 0xffff) + (sum >> 16));
	udp->len = bpf_htons(at - ETH_HLEN - sizeof(*ip));
	udp->check = 0;
	dns->flags = QR | RA | (query->flags & RD_CD);
	dns->answers = bpf_htons(records);
	dns->authorities = bpf_htons(!records);
	dns->additionals = bpf_htons(query->edns);
	return TC_ACT_UNSPEC;
}

/* Tell who follows the log. */
static __always_inline void tell(struct __sk_buff *skb, __u64 start, __be32 client, __u32 number, struct query *query,
				 __u32 records)
{
	struct event *event = bpf_ringbuf_reserve(&netd_log, sizeof(*event), 0);
	__u64 length = query->length;

	if (!event)
		return;
	event->time = start;
	event->spent = bpf_ktime_get_ns() - start;
	event->client = client;
	event->number = number;
	event->type = query->type;
	event->records = records;
	event->length = length;
	if (!BOUND(10, WITHIN(length, NAME)) || bpf_skb_load_bytes(skb, QUESTION, event->name, length)) {
		bpf_ringbuf_discard(event, 0);
		return;
	}
	bpf_ringbuf_submit(event, 0);
}

/* Find the answer to a question, as of one moment. The memory of what is taken out of a map is used again at once: if
 * something was taken out while we looked, what was found may be another name's, and we look again.
 */
static __always_inline bool known(struct __sk_buff *skb, __u32 number, struct sandbox *sandbox,
				  struct settings *settings, __u32 removals, struct query *query,
				  struct answer *answer)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < TRIES; i++) {
		struct key key = {};
		bool found = parse(skb, query, &key) && find(sandbox, &key, answer);
		__u32 now = *(volatile __u32 *)&settings->removals;

		if (now == removals)
			return found;
		removals = now;
		sandbox = bpf_map_lookup_elem(&netd_sandboxes, &number);
		if (!sandbox)
			return false;
	}
	return false;
}

/* Answer a question if that can be done here: TC_ACT_UNSPEC if it is done, TC_ACT_OK if the resolver must be asked,
 * TC_ACT_SHOT if the packet is lost.
 */
static __always_inline int answered(struct __sk_buff *skb, __u32 number, struct sandbox *sandbox, __be32 client,
				    struct settings *settings, __u32 removals)
{
	struct query query = {};
	__u32 zero = 0, records = 0, at, more;
	struct answer *answer = bpf_map_lookup_elem(&netd_scratch, &zero);
	__u64 start = settings->followed ? bpf_ktime_get_ns() : 0;
	int result;

	if (!answer || !known(skb, number, sandbox, settings, removals, &query, answer))
		return TC_ACT_OK;
	if (answer->kind == ADDRESSES && query.type == A && answer->ipv4s <= IPV4S) {
		records = answer->ipv4s;
		more = records * (RECORD + 4);
	} else if (answer->kind == ADDRESSES && query.type == AAAA && answer->ipv6s <= IPV6S) {
		records = answer->ipv6s;
		more = records * (RECORD + 16);
	} else if (answer->kind == POINTS && query.type == PTR) {
		records = 1;
		more = RECORD + answer->size;
	} else if (answer->kind != ADDRESSES || query.type == A || query.type == AAAA || !answer->nodata) {
		return TC_ACT_OK;
	}
	if (!records)
		more = sizeof(struct soa);
	at = QUESTION + query.length + sizeof(struct question_end);
	if (bpf_skb_change_tail(skb, at + more + (query.edns ? sizeof(struct edns) : 0), 0))
		return TC_ACT_OK;
	result = reply(skb, &query, answer, records, at);
	if (start)
		tell(skb, start, client, number, &query, records);
	return result;
}

/* ---- packets --------------------------------------------------------------------------------------------------- */

/* Give a packet another source or destination port, at this offset; its checksum follows. */
static __always_inline void rewrite(struct __sk_buff *skb, __u32 at, __u32 checksum, __be16 from, __be16 to)
{
	/* BPF_F_MARK_MANGLED_0: a UDP checksum of 0 is none and stays so */
	bpf_l4_csum_replace(skb, checksum, from, to, BPF_F_MARK_MANGLED_0 | sizeof(to));
	bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0);
}

struct ports {
	__be16 source, dest;
};

SEC("tc")
int netd_dns(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct ports *plain = (void *)(ip + 1), ports; /* behind a header without options */
	__u32 number = skb->tc_classid, zero = 0, removals, at, checksum;
	__be32 from, to;
	__u8 protocol;
	struct settings *settings;
	struct sandbox *sandbox;
	bool udp;

	if (skb->protocol != bpf_htons(ETH_P_IP) || !BOUND(1, (void *)(ip + 1) <= data_end))
		return TC_ACT_UNSPEC;
	from = ip->saddr, to = ip->daddr, protocol = ip->protocol;
	udp = protocol == IPPROTO_UDP;
	if ((from != RESOLVER && to != RESOLVER) || (!udp && protocol != IPPROTO_TCP) ||
	    ip->frag_off & bpf_htons(0x3fff)) /* a fragment: its ports are elsewhere, and `lo` makes none */
		return TC_ACT_UNSPEC;
	at = ETH_HLEN + ip->ihl * 4;
	settings = bpf_map_lookup_elem(&netd_settings, &zero);
	if (!settings)
		return TC_ACT_UNSPEC;
	removals = *(volatile __u32 *)&settings->removals;
	sandbox = bpf_map_lookup_elem(&netd_sandboxes, &number);
	if (!sandbox)
		return TC_ACT_UNSPEC;
	if (at == ETH_HLEN + sizeof(*ip) && (void *)(plain + 1) <= data_end)
		ports = *plain;
	else if (bpf_skb_load_bytes(skb, at, &ports, sizeof(ports)))
		return TC_ACT_UNSPEC;
	checksum = at + (udp ? offsetof(struct udphdr, check) : 16 /* TCP: RFC 9293 section 3.1 */);

	if (to == RESOLVER && ports.dest == DOMAIN) {
		if (udp && at == ETH_HLEN + sizeof(*ip)) {
			int result = answered(skb, number, sandbox, from, settings, removals);

			count(result == TC_ACT_OK ? PASSED : ANSWERED);
			if (result != TC_ACT_OK)
				return result;
		}
		rewrite(skb, at + 2, checksum, DOMAIN, udp ? sandbox->udp : sandbox->tcp);
	} else if (from == RESOLVER && ports.source == (udp ? sandbox->udp : sandbox->tcp)) {
		rewrite(skb, at, checksum, ports.source, DOMAIN);
	}
	return TC_ACT_UNSPEC;
}

char licence[] SEC("license") = "Apache-2.0";
