/**
 * The platform's numbers for families, types, levels, options and flags, as its C headers have them. It
 * changes when a platform or a constant is added.
 */

declare const family: unique symbol;
type Family<Name extends string> = number & { readonly [family]: Name };

/** IPv4: addresses are [host, port]. */
export type AF_INET = Family<"inet">;
/** IPv6: addresses are [host, port, flowinfo, scopeid]. */
export type AF_INET6 = Family<"inet6">;
/** Unix domain: addresses are paths. */
export type AF_UNIX = Family<"unix">;
export type AddressFamily = AF_INET | AF_INET6 | AF_UNIX;

/**
 * The number on Linux, and on macOS (untested). Where a platform lacks the constant it is undefined, and
 * calls refuse that; its type says number, so that a program for Linux need not check each one.
 */
const on = (linux: number, macos?: number): number =>
  (process.platform === "darwin" ? macos : linux) as number;

export const AF_UNIX = 1 as AF_UNIX;
export const AF_INET = 2 as AF_INET;
export const AF_INET6 = on(10, 30) as AF_INET6;

export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;

export const SHUT_RD = 0;
export const SHUT_WR = 1;
export const SHUT_RDWR = 2;

export const IPPROTO_IP = 0;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_IPV6 = 41;

export const MSG_OOB = 0x1;
export const MSG_PEEK = 0x2;
export const TCP_NODELAY = 1;

/** Host addresses as 32-bit numbers in host order, as in Python. */
export const INADDR_ANY = 0;
export const INADDR_LOOPBACK = 0x7f000001;
export const INADDR_BROADCAST = 0xffffffff;
export const INADDR_NONE = 0xffffffff;
export const INADDR_UNSPEC_GROUP = 0xe0000000;
export const INADDR_ALLHOSTS_GROUP = 0xe0000001;
export const INADDR_MAX_LOCAL_GROUP = 0xe00000ff;

export const SOL_SOCKET = on(1, 0xffff);

export const SO_REUSEADDR = on(2, 0x4);
export const SO_TYPE = on(3, 0x1008);
export const SO_ERROR = on(4, 0x1007);
export const SO_DONTROUTE = on(5, 0x10);
export const SO_BROADCAST = on(6, 0x20);
export const SO_SNDBUF = on(7, 0x1001);
export const SO_RCVBUF = on(8, 0x1002);
export const SO_KEEPALIVE = on(9, 0x8);
export const SO_OOBINLINE = on(10, 0x100);
export const SO_LINGER = on(13, 0x80);
export const SO_REUSEPORT = on(15, 0x200);
export const SO_RCVLOWAT = on(18, 0x1004);
export const SO_SNDLOWAT = on(19, 0x1003);
export const SO_RCVTIMEO = on(20, 0x1006);
export const SO_SNDTIMEO = on(21, 0x1005);
export const SO_ACCEPTCONN = on(30, 0x2);
export const SO_PROTOCOL = on(38);
export const SO_DOMAIN = on(39);
export const SO_DEBUG = on(1, 1);
export const SO_PRIORITY = on(12);
export const SO_PASSCRED = on(16);
export const SO_PEERCRED = on(17);
export const SO_BINDTODEVICE = on(25);
export const SO_PEERSEC = on(31);
export const SO_PASSSEC = on(34);
export const SO_MARK = on(36);
export const SO_INCOMING_CPU = on(49);

export const TCP_MAXSEG = on(2, 2);
export const TCP_KEEPIDLE = on(4, 0x10);
export const TCP_KEEPINTVL = on(5, 0x101);
export const TCP_KEEPCNT = on(6, 0x102);
export const TCP_FASTOPEN = on(23, 0x105);
export const TCP_USER_TIMEOUT = on(18);
export const TCP_INFO = on(11);
export const TCP_CORK = on(3);
export const TCP_QUICKACK = on(12);
export const TCP_SYNCNT = on(7);
export const TCP_LINGER2 = on(8);
export const TCP_DEFER_ACCEPT = on(9);
export const TCP_WINDOW_CLAMP = on(10);
export const TCP_CONGESTION = on(13);
export const TCP_NOTSENT_LOWAT = on(25, 513);

export const IPV6_V6ONLY = on(26, 27);

export const SOMAXCONN = on(4096, 128);

export const MSG_DONTWAIT = on(0x40, 0x80);
export const MSG_NOSIGNAL = on(0x4000);

export const EAI_AGAIN = on(-3, 2);
export const EAI_BADFLAGS = on(-1, 3);
export const EAI_FAIL = on(-4, 4);
export const EAI_FAMILY = on(-6, 5);
export const EAI_MEMORY = on(-10, 6);
export const EAI_NODATA = on(-5, 7);
export const EAI_NONAME = on(-2, 8);
export const EAI_SERVICE = on(-8, 9);
export const EAI_SOCKTYPE = on(-7, 10);
export const EAI_ADDRFAMILY = on(-9, 1);
export const EAI_OVERFLOW = on(-12, 14);
export const EAI_SYSTEM = on(-11, 11);

export const SOCK_NONBLOCK = on(0o4000);
export const SOCK_CLOEXEC = on(0o2000000);
