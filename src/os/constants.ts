/**
 * The platform's numbers for families, types, levels, options and flags, as its C headers have them. It
 * changes when a platform or a constant is added. A constant that a platform lacks is undefined there.
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

const linux = {
  AF_INET6: 10,
  SOL_SOCKET: 1,
  SO_REUSEADDR: 2,
  SO_TYPE: 3,
  SO_ERROR: 4,
  SO_DONTROUTE: 5,
  SO_BROADCAST: 6,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_KEEPALIVE: 9,
  SO_OOBINLINE: 10,
  SO_LINGER: 13,
  SO_REUSEPORT: 15,
  SO_RCVLOWAT: 18,
  SO_SNDLOWAT: 19,
  SO_RCVTIMEO: 20,
  SO_SNDTIMEO: 21,
  SO_ACCEPTCONN: 30,
  SO_PROTOCOL: 38,
  SO_DOMAIN: 39,
  TCP_MAXSEG: 2,
  TCP_KEEPIDLE: 4,
  TCP_KEEPINTVL: 5,
  TCP_KEEPCNT: 6,
  TCP_FASTOPEN: 23,
  TCP_USER_TIMEOUT: 18,
  TCP_INFO: 11,
  TCP_CORK: 3,
  TCP_QUICKACK: 12,
  IPV6_V6ONLY: 26,
  SOMAXCONN: 4096,
  MSG_DONTWAIT: 0x40,
  MSG_NOSIGNAL: 0x4000,
  EAI_AGAIN: -3,
  EAI_BADFLAGS: -1,
  EAI_FAIL: -4,
  EAI_FAMILY: -6,
  EAI_MEMORY: -10,
  EAI_NODATA: -5,
  EAI_NONAME: -2,
  EAI_SERVICE: -8,
  EAI_SOCKTYPE: -7,
  SO_DEBUG: 1,
  SO_PRIORITY: 12,
  SO_PASSCRED: 16,
  SO_PEERCRED: 17,
  SO_BINDTODEVICE: 25,
  SO_PEERSEC: 31,
  SO_PASSSEC: 34,
  SO_MARK: 36,
  SO_INCOMING_CPU: 49,
  TCP_SYNCNT: 7,
  TCP_LINGER2: 8,
  TCP_DEFER_ACCEPT: 9,
  TCP_WINDOW_CLAMP: 10,
  TCP_CONGESTION: 13,
  TCP_NOTSENT_LOWAT: 25,
  EAI_ADDRFAMILY: -9,
  EAI_OVERFLOW: -12,
  EAI_SYSTEM: -11,
  /** Flags of socket(2) itself. */
  SOCK_NONBLOCK: 0o4000,
  SOCK_CLOEXEC: 0o2000000,
};

const darwin: { [Name in keyof typeof linux]: number | undefined } = {
  AF_INET6: 30,
  SOL_SOCKET: 0xffff,
  SO_REUSEADDR: 0x4,
  SO_TYPE: 0x1008,
  SO_ERROR: 0x1007,
  SO_DONTROUTE: 0x10,
  SO_BROADCAST: 0x20,
  SO_SNDBUF: 0x1001,
  SO_RCVBUF: 0x1002,
  SO_KEEPALIVE: 0x8,
  SO_OOBINLINE: 0x100,
  SO_LINGER: 0x80,
  SO_REUSEPORT: 0x200,
  SO_RCVLOWAT: 0x1004,
  SO_SNDLOWAT: 0x1003,
  SO_RCVTIMEO: 0x1006,
  SO_SNDTIMEO: 0x1005,
  SO_ACCEPTCONN: 0x2,
  SO_PROTOCOL: undefined,
  SO_DOMAIN: undefined,
  TCP_MAXSEG: 2,
  TCP_KEEPIDLE: 0x10,
  TCP_KEEPINTVL: 0x101,
  TCP_KEEPCNT: 0x102,
  TCP_FASTOPEN: 0x105,
  TCP_USER_TIMEOUT: undefined,
  TCP_INFO: undefined,
  TCP_CORK: undefined,
  TCP_QUICKACK: undefined,
  IPV6_V6ONLY: 27,
  SOMAXCONN: 128,
  MSG_DONTWAIT: 0x80,
  MSG_NOSIGNAL: undefined,
  EAI_AGAIN: 2,
  EAI_BADFLAGS: 3,
  EAI_FAIL: 4,
  EAI_FAMILY: 5,
  EAI_MEMORY: 6,
  EAI_NODATA: 7,
  EAI_NONAME: 8,
  EAI_SERVICE: 9,
  EAI_SOCKTYPE: 10,
  SO_DEBUG: 1,
  SO_PRIORITY: undefined,
  SO_PASSCRED: undefined,
  SO_PEERCRED: undefined,
  SO_BINDTODEVICE: undefined,
  SO_PEERSEC: undefined,
  SO_PASSSEC: undefined,
  SO_MARK: undefined,
  SO_INCOMING_CPU: undefined,
  TCP_SYNCNT: undefined,
  TCP_LINGER2: undefined,
  TCP_DEFER_ACCEPT: undefined,
  TCP_WINDOW_CLAMP: undefined,
  TCP_CONGESTION: undefined,
  TCP_NOTSENT_LOWAT: 513,
  EAI_ADDRFAMILY: 1,
  EAI_OVERFLOW: 14,
  EAI_SYSTEM: 11,
  SOCK_NONBLOCK: undefined,
  SOCK_CLOEXEC: undefined,
};

// Elsewhere the numbers do not matter: nothing that takes them can be called there.
const here = (process.platform === "darwin" ? darwin : linux) as typeof linux;

export const AF_UNIX = 1 as AF_UNIX;
export const AF_INET = 2 as AF_INET;
export const AF_INET6 = here.AF_INET6 as AF_INET6;

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

export const {
  SOL_SOCKET,
  SO_REUSEADDR,
  SO_TYPE,
  SO_ERROR,
  SO_DONTROUTE,
  SO_BROADCAST,
  SO_SNDBUF,
  SO_RCVBUF,
  SO_KEEPALIVE,
  SO_OOBINLINE,
  SO_LINGER,
  SO_REUSEPORT,
  SO_RCVLOWAT,
  SO_SNDLOWAT,
  SO_RCVTIMEO,
  SO_SNDTIMEO,
  SO_ACCEPTCONN,
  SO_PROTOCOL,
  SO_DOMAIN,
  TCP_MAXSEG,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  TCP_KEEPCNT,
  TCP_FASTOPEN,
  TCP_USER_TIMEOUT,
  TCP_INFO,
  TCP_CORK,
  TCP_QUICKACK,
  IPV6_V6ONLY,
  SOMAXCONN,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  EAI_AGAIN,
  EAI_BADFLAGS,
  EAI_FAIL,
  EAI_FAMILY,
  EAI_MEMORY,
  EAI_NODATA,
  EAI_NONAME,
  EAI_SERVICE,
  EAI_SOCKTYPE,
  SO_DEBUG,
  SO_PRIORITY,
  SO_PASSCRED,
  SO_PEERCRED,
  SO_BINDTODEVICE,
  SO_PEERSEC,
  SO_PASSSEC,
  SO_MARK,
  SO_INCOMING_CPU,
  TCP_SYNCNT,
  TCP_LINGER2,
  TCP_DEFER_ACCEPT,
  TCP_WINDOW_CLAMP,
  TCP_CONGESTION,
  TCP_NOTSENT_LOWAT,
  EAI_ADDRFAMILY,
  EAI_OVERFLOW,
  EAI_SYSTEM,
  SOCK_NONBLOCK,
  SOCK_CLOEXEC,
} = here;
