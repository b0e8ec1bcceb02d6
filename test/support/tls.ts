/**
 * A self-signed certificate for the tests, valid for a hundred years and trusted nowhere else: CN localhost,
 * SAN DNS:localhost, IP:127.0.0.1, IP:::1. It is its own authority, so that a client verifies it by `ca:
 * cert`.
 */

export const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSk1JyWnwgIyB+RxN
ys7SITbLo6IRr91m1ZxjZO9o5zuhRANCAATn3HXgThcWqq8lraevEHbbi0vGUDPc
2dYiJpmghyc4Mn5x8lRnYX+IjUSzt/3ZFwTUnHKFtDwUbxvwAX11EJ+s
-----END PRIVATE KEY-----`;

export const cert = `-----BEGIN CERTIFICATE-----
MIIBrjCCAVSgAwIBAgIUQOogjfFfUuSulZ1foNL4/aqwj6gwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjIwNDIzNVoYDzIxMjYxMDI5
MjA0MjM1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATn3HXgThcWqq8lraevEHbbi0vGUDPc2dYiJpmghyc4Mn5x8lRnYX+I
jUSzt/3ZFwTUnHKFtDwUbxvwAX11EJ+so4GBMH8wHQYDVR0OBBYEFAwZOIvT9AVa
eV2ryQg/Zykvi050MB8GA1UdIwQYMBaAFAwZOIvT9AVaeV2ryQg/Zykvi050MCwG
A1UdEQQlMCOCCWxvY2FsaG9zdIcEfwAAAYcQAAAAAAAAAAAAAAAAAAAAATAPBgNV
HRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDEnf8VV6Y3+z5bJjwbu3au
gn1it/o9uJSFZy4JP2MilQIgN7k/7Mg/cKJJyMJdmy6OwV09MmsbNdG6noES4llP
msQ=
-----END CERTIFICATE-----`;
