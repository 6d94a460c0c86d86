/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sealing and key slots. */
#include "libprep/ckm/seal.h"

#include "libprep/base/bytes.h"
#include "libprep/ckm/keys.h"
#include "libprep/ckm/section.h"
#include "tests/unit/check.h"

static const uint8_t text[] = "what is sealed";
static uint8_t sealed[sizeof text + PREP_SEAL_TAG], opened[sizeof text];

static void what_is_sealed_opens(void)
{
	struct prep_err err;
	struct prep_seal *s;

	CHECK_DONE(prep_seal_new(&s, &err));
	CHECK_DONE(prep_seal_seal(s, PREP_SEAL_FRAME, 7, text, 3, text, sizeof text, sealed, &err));
	CHECK(memcmp(sealed, text, sizeof text) != 0);
	CHECK_DONE(prep_seal_unseal(s, PREP_SEAL_FRAME, 7, text, 3, sealed, sizeof sealed, opened, "it", &err));
	CHECK(memcmp(opened, text, sizeof text) == 0);
	prep_seal_free(s);
}

/* Kind, number, package, associated data, and every bit. */
static void what_is_changed_or_moved_does_not_open(void)
{
	struct prep_err err;
	struct prep_seal *s;

	CHECK_DONE(prep_seal_new(&s, &err));
	CHECK_DONE(prep_seal_seal(s, PREP_SEAL_FRAME, 7, text, 3, text, sizeof text, sealed, &err));
#define BROKEN(kind, number, aad, aad_len, len)                                                             \
	CHECK_FAILS(prep_seal_unseal(s, kind, number, aad, aad_len, sealed, len, opened, "frame 7", &err),  \
		    PREP_EDAMAGED, "frame 7: its seal is broken")
	BROKEN(PREP_SEAL_INDEX, 7, text, 3, sizeof sealed);
	BROKEN(PREP_SEAL_FRAME, 8, text, 3, sizeof sealed);
	BROKEN(PREP_SEAL_FRAME, 7, text, 4, sizeof sealed);
	BROKEN(PREP_SEAL_FRAME, 7, NULL, 0, sizeof sealed);
	BROKEN(PREP_SEAL_FRAME, 7, text, 3, sizeof sealed - 1);
	BROKEN(PREP_SEAL_FRAME, 7, text, 3, PREP_SEAL_TAG - 1);
	BROKEN(PREP_SEAL_FRAME, 7, text, 3, 0);
	for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
		sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
		BROKEN(PREP_SEAL_FRAME, 7, text, 3, sizeof sealed);
		sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	s->id[3] ^= 1;
	BROKEN(PREP_SEAL_FRAME, 7, text, 3, sizeof sealed);
	s->id[3] ^= 1;
	s->key[3] ^= 1;
	BROKEN(PREP_SEAL_FRAME, 7, text, 3, sizeof sealed);
	prep_seal_free(s);
}

static EVP_PKEY *new_key(void)
{
	return EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
}

static void each_slot_opens_for_its_owner_alone(void)
{
	uint8_t slots[3 * PREP_CKM_SLOT_SIZE];
	EVP_PKEY *a = new_key(), *b = new_key(), *stranger = new_key();
	struct prep_seal *s, *got;
	struct prep_err err;

	CHECK_DONE(prep_seal_new(&s, &err));
	CHECK_DONE(prep_seal_slot_recipient(s, a, slots, &err));
	CHECK_DONE(prep_seal_slot_recipient(s, b, slots + PREP_CKM_SLOT_SIZE, &err));
	CHECK_DONE(prep_seal_slot_passphrase(s, "open sesame", 11, slots + 2 * PREP_CKM_SLOT_SIZE, &err));
	CHECK_DONE(prep_seal_slots_check(slots, 3, "it", &err));

	CHECK_EQ(prep_seal_open_key(slots, 3, s->id, a, &got, &err), 1);
	CHECK(memcmp(got, s, sizeof *s) == 0);
	prep_seal_free(got);
	CHECK_EQ(prep_seal_open_key(slots, 3, s->id, b, &got, &err), 1);
	CHECK(memcmp(got, s, sizeof *s) == 0);
	prep_seal_free(got);
	CHECK_EQ(prep_seal_open_passphrase(slots, 3, s->id, "open sesame", 11, &got, &err), 1);
	CHECK(memcmp(got, s, sizeof *s) == 0);
	prep_seal_free(got);

	CHECK_EQ(prep_seal_open_key(slots, 3, s->id, stranger, &got, &err), 0);
	CHECK(got == NULL);
	CHECK_EQ(prep_seal_open_passphrase(slots, 3, s->id, "open sesamE", 11, &got, &err), 0);
	/* A slot put into another package. */
	s->id[0] ^= 1;
	CHECK_EQ(prep_seal_open_key(slots, 3, s->id, a, &got, &err), 0);
	CHECK_EQ(prep_seal_open_passphrase(slots, 3, s->id, "open sesame", 11, &got, &err), 0);
	prep_seal_free(s);
	EVP_PKEY_free(a);
	EVP_PKEY_free(b);
	EVP_PKEY_free(stranger);
}

static void every_byte_of_a_recipients_slot_counts(void)
{
	uint8_t slot[PREP_CKM_SLOT_SIZE];
	EVP_PKEY *a = new_key();
	struct prep_seal *s, *got;
	struct prep_err err = PREP_ERR_INIT;

	CHECK_DONE(prep_seal_new(&s, &err));
	CHECK_DONE(prep_seal_slot_recipient(s, a, slot, &err));
	for (size_t i = 0; i < sizeof slot; i++) {
		struct prep_err e = PREP_ERR_INIT;

		slot[i] ^= 0x10;
		if (prep_seal_slots_check(slot, 1, "it", &e) == 0)
			CHECK_EQ(prep_seal_open_key(slot, 1, s->id, a, &got, &err), 0);
		slot[i] ^= 0x10;
	}
	/* A point of small order: no shared secret. */
	memset(slot + 8, 0, 32);
	CHECK_EQ(prep_seal_open_key(slot, 1, s->id, a, &got, &err), 0);
	prep_seal_free(s);
	EVP_PKEY_free(a);
}

static void slots_out_of_bounds_are_refused(void)
{
	uint8_t slots[2 * PREP_CKM_SLOT_SIZE];
	struct prep_err err;

	memset(slots, 0, sizeof slots);
	CHECK_FAILS(prep_seal_slots_check(slots, 1, "it", &err), PREP_EREFUSED, "key slot 0 is of a kind");
	put_le32(slots, 2);
	slots[4] = 17;
	slots[5] = 8;
	slots[6] = 1;
	CHECK_DONE(prep_seal_slots_check(slots, 1, "it", &err));
	slots[4] = 19; /* 512 MiB */
	CHECK_FAILS(prep_seal_slots_check(slots, 1, "it", &err), PREP_EDAMAGED, "key slot 0 is damaged");
	slots[4] = 255;
	CHECK_FAILS(prep_seal_slots_check(slots, 1, "it", &err), PREP_EDAMAGED, "key slot 0 is damaged");
	slots[4] = 17;
	slots[6] = 200;
	CHECK_FAILS(prep_seal_slots_check(slots, 1, "it", &err), PREP_EDAMAGED, "key slot 0 is damaged");
	slots[6] = 1;
	memcpy(slots + PREP_CKM_SLOT_SIZE, slots, PREP_CKM_SLOT_SIZE);
	CHECK_FAILS(prep_seal_slots_check(slots, 2, "it", &err), PREP_EDAMAGED, "key slot 1 is damaged");
}

static void passphrases_are_the_first_line(void)
{
	static const char *const file[] = { "secret\nsecond\n", "secret\r\n", "secret" };
	struct prep_passphrase *p;
	struct prep_err err;

	for (size_t i = 0; i < 3; i++) {
		const int fd = check_create("phrase");

		check_write(fd, file[i], strlen(file[i]), 0);
		close(fd);
		CHECK_DONE(prep_passphrase_read(check_path("phrase"), PREP_PASSPHRASE_SEALS, &p, &err));
		CHECK_EQ(p->len, 6);
		CHECK(memcmp(p->text, "secret", 6) == 0);
		prep_passphrase_free(p);
	}
	close(check_create("phrase"));
	CHECK_FAILS(prep_passphrase_read(check_path("phrase"), PREP_PASSPHRASE_SEALS, &p, &err), PREP_EREFUSED, "empty");
	CHECK_FAILS(prep_passphrase_read(check_path("none"), PREP_PASSPHRASE_SEALS, &p, &err), PREP_EFAIL, "cannot open");
	CHECK_FAILS(prep_passphrase_read("/dev/zero", PREP_PASSPHRASE_SEALS, &p, &err), PREP_EREFUSED, "more than");
}

int main(void)
{
	RUN(what_is_sealed_opens);
	RUN(what_is_changed_or_moved_does_not_open);
	RUN(each_slot_opens_for_its_owner_alone);
	RUN(every_byte_of_a_recipients_slot_counts);
	RUN(slots_out_of_bounds_are_refused);
	RUN(passphrases_are_the_first_line);
	return check_result();
}
