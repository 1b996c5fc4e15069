/* SPDX-License-Identifier: MIT */
/*
 * mmu_kvm.c - a virtual machine whose memory is an alias of the program's.
 *
 *   mmu_kvm [--with | --without]      without either: both, and the two must differ
 *
 * The program has eight pages at A, the banks. The guest sees each of them as a page of its own memory:
 * a slot of KVM's, whose address is not A but another mapping of the same memory, B. (The kernel keeps a slot
 * that points at A right by itself; so would it all a monitor does that maps what it finds anew in
 * another process, or with other rights.) When the program maps something else at A, unmaps it, moves it or
 * takes its rights away, the guest goes on with what B is, which is what A was; unless
 *
 *   start	raises the count of changes under way and deletes the slots that are concerned: when
 *		KVM_SET_USER_MEMORY_REGION has returned, no processor of the guest uses them any more;
 *   fault	the guest's next access leaves it (KVM_EXIT_MMIO). The thread of the processor waits while changes
 *		are under way, looks up what is mapped at A now, and makes the slot again, if no change
 *		came between; as KVM itself does with the kernel's notifiers;
 *   end	lowers the count, and faults that waited go on.
 *
 * The guest reads what a bank must hold, the bank, and once more what it must hold; the program has
 * written down that a change is under way before it makes one, and what the bank must hold when the call has
 * returned. So whatever the guest finds else is stale.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <shunt/mmu.h>

#define PAGE	4096
#define THREADS 2
#define EACH	4 /* banks of a thread */
#define BANKS	(THREADS * EACH)
#define ROUNDS	300
#define ENOUGH	15 /* seconds: on a busy machine, where who yields comes back after milliseconds, not all rounds are made */
#define SKIP	77

/* The guest's memory: its code and what it shares with the program at 0, the banks at 64 KiB. */
#define CODE 0x1000
#define BANK 0x10000

#define NOTHING	 0xffffffffu /* what the guest reads where no memory is */
#define CHANGING 0xfffffffeu

/*
 * The guest, in real mode: ds = 0, es = BANK / 16. For bank after bank: eax = what it must hold, ebx =
 * what it does. Processors read in the order of the program, and an access that leaves the guest is in its place too.
 */
__asm__(".pushsection .rodata\n"
	".code16\n"
	"guest:\n"
	"1:	xorw %si, %si\n"	  /* 4 * bank */
	"	xorw %di, %di\n"	  /* its address */
	"2:	movl 0x00(%si), %eax\n"	  /* struct shared: expected */
	"	movl %es:(%di), %ebx\n"
	"	cmpl 0x00(%si), %eax\n"
	"	jne 3f\n"
	"	cmpl $0xfffffffe, %eax\n" /* CHANGING */
	"	je 3f\n"
	"	incl 0x24\n"		  /* looks */
	"	cmpl %ebx, %eax\n"
	"	je 3f\n"
	"	incl 0x28\n"		  /* stale */
	"3:	addw $4, %si\n"
	"	addw $4096, %di\n"
	"	cmpw $32, %si\n"
	"	jne 2b\n"
	"	incl 0x20\n"		  /* passes */
	"	cmpl $0, 0x2c\n"	  /* stop */
	"	je 1b\n"
	"	hlt\n"
	".globl guest_end\n"
	"guest_end:\n"
	".code64\n"
	".popsection\n");
extern const char guest[], guest_end[];

struct shared {
	_Atomic uint32_t expected[BANKS];
	_Atomic uint32_t passes, looks, stale, stop;
};
_Static_assert(sizeof(struct shared) == 0x30, "the guest's addresses");

static int vm, vcpu;
static struct kvm_run *run;
static struct shared *shared;
static char *a; /* the banks, where the program has them */

/* ---- The monitor: slots, faults. ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned active;    /* changes under way, of any bank */
	unsigned long seq;  /* changes so far */
	char *alias[BANKS]; /* NULL: no slot */
} mmu = { .lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER };
static unsigned long faults, waited, again;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "mmu_kvm: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* size 0: deletes it. */
static void set_slot(uint32_t slot, uint64_t guest_address, const void *p, size_t size)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot, .guest_phys_addr = guest_address, .memory_size = size,
		.userspace_addr = (uintptr_t)p,
	};

	check(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r), "KVM_SET_USER_MEMORY_REGION");
}

/* With the lock. The alias is unmapped by whoever called, without it: that is a change, too. */
static char *drop(unsigned bank)
{
	char *alias = mmu.alias[bank];

	if (alias)
		set_slot(1 + bank, BANK + (uint64_t)bank * PAGE, alias, 0);
	mmu.alias[bank] = NULL;
	return alias;
}

/*
 * What is mapped at the bank now, by another mapping of it: mremap() from nothing makes one, of shared memory.
 * NULL: nothing is there, or the program itself may not read it.
 */
static char *walk(unsigned bank)
{
	char *page = a + (size_t)bank * PAGE, byte, *alias;
	struct iovec to = { &byte, 1 }, from = { page, 1 };

	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != 1)
		return NULL;
	alias = mremap(page, 0, PAGE, MREMAP_MAYMOVE);
	sched_yield(); /* a walk takes time: others run meanwhile */
	return alias == MAP_FAILED ? NULL : alias;
}

/* true: the slot is there, or is not to be, and *word is what the guest reads meanwhile. */
static bool fault_once(unsigned bank, uint32_t *word)
{
	unsigned long seq;
	char *alias;
	bool ok;

	pthread_mutex_lock(&mmu.lock);
	waited += mmu.active > 0;
	while (mmu.active)
		pthread_cond_wait(&mmu.idle, &mmu.lock);
	seq = mmu.seq;
	pthread_mutex_unlock(&mmu.lock);

	alias = walk(bank); /* as slowly as need be, and without the lock: it makes changes itself */

	pthread_mutex_lock(&mmu.lock);
	ok = !mmu.active && mmu.seq == seq;
	if (ok && alias) {
		*word = *(volatile uint32_t *)alias;
		mmu.alias[bank] = alias;
		set_slot(1 + bank, BANK + (uint64_t)bank * PAGE, alias, PAGE);
	}
	pthread_mutex_unlock(&mmu.lock);
	if (!ok && alias)
		munmap(alias, PAGE);
	again += !ok;
	return ok;
}

static uint32_t fault(unsigned bank)
{
	uint32_t word = NOTHING;

	faults++;
	while (!fault_once(bank, &word))
		word = NOTHING;
	return word;
}

static void *processor(void *arg)
{
	for (;;) {
		uint64_t at;
		uint32_t word;

		check(!ioctl(vcpu, KVM_RUN, NULL) || errno == EINTR, "KVM_RUN");
		if (run->exit_reason == KVM_EXIT_HLT)
			return arg;
		at = run->mmio.phys_addr;
		if (run->exit_reason != KVM_EXIT_MMIO || run->mmio.is_write || run->mmio.len != 4 ||
			at < BANK || at >= BANK + BANKS * PAGE || at % PAGE) {
			fprintf(stderr, "mmu_kvm: the guest has gone wrong: exit %u\n", run->exit_reason);
			exit(2);
		}
		word = fault((unsigned)((at - BANK) / PAGE));
		memcpy(run->mmio.data, &word, sizeof word);
	}
}

/* ---- The notifier. ---- */

static bool concerned(const struct shunt_mmu_event *e)
{
	return e->start < (uintptr_t)a + BANKS * PAGE && e->end > (uintptr_t)a;
}

static void start(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	char *old[BANKS];
	unsigned count = 0;

	(void)n;
	if (!concerned(e))
		return;
	pthread_mutex_lock(&mmu.lock);
	mmu.active++;
	mmu.seq++;
	for (unsigned i = 0; i < BANKS; i++) {
		uintptr_t page = (uintptr_t)a + (size_t)i * PAGE;

		if (page < e->end && page + PAGE > e->start && mmu.alias[i])
			old[count++] = drop(i);
	}
	pthread_mutex_unlock(&mmu.lock);
	while (count)
		munmap(old[--count], PAGE);
}

static void end(struct shunt_mmu_notifier *n, const struct shunt_mmu_event *e)
{
	(void)n;
	if (!concerned(e))
		return;
	pthread_mutex_lock(&mmu.lock);
	check(mmu.active, "an end without a start");
	if (!--mmu.active)
		pthread_cond_broadcast(&mmu.idle);
	pthread_mutex_unlock(&mmu.lock);
}

static void release(struct shunt_mmu_notifier *n)
{
	(void)n;
	for (unsigned i = 0; i < BANKS; i++) {
		char *alias;

		pthread_mutex_lock(&mmu.lock);
		alias = drop(i);
		pthread_mutex_unlock(&mmu.lock);
		if (alias)
			munmap(alias, PAGE);
	}
}

static const struct shunt_mmu_notifier_ops ops = {
	.release = release, .invalidate_range_start = start, .invalidate_range_end = end,
};
static struct shunt_mmu_notifier notifier = { .ops = &ops };

/* ---- The program. ---- */

struct owner {
	unsigned first;
	uint32_t version;
	uint32_t holds[EACH]; /* what each bank does: a version, or NOTHING */
	bool locked[EACH];    /* PROT_NONE */
	unsigned seed;
};

static char *address(const struct owner *o, unsigned i)
{
	return a + (size_t)(o->first + i) * PAGE;
}

static void changing(struct owner *o, unsigned i)
{
	shared->expected[o->first + i] = CHANGING;
}

static void changed(struct owner *o, unsigned i)
{
	shared->expected[o->first + i] = o->locked[i] ? NOTHING : o->holds[i];
}

/* Until the guest has looked at every bank, once at least since now. */
static void let_it_look(void)
{
	uint32_t from = shared->passes;

	while (shared->passes - from < 2)
		sched_yield();
}

/* Memory of its own for each version. */
static void map(struct owner *o, unsigned i)
{
	int fd = memfd_create("bank", MFD_CLOEXEC);
	uint32_t version = ++o->version;

	check(fd >= 0 && !ftruncate(fd, PAGE) && pwrite(fd, &version, sizeof version, 0) == sizeof version,
		"memfd");
	changing(o, i);
	check(mmap(address(o, i), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED,
		"mmap");
	close(fd);
	o->holds[i] = version;
	o->locked[i] = false;
	changed(o, i);
}

/* This and all that follow, in one call. */
static void unmap(struct owner *o, unsigned i)
{
	for (unsigned j = i; j < EACH; j++)
		changing(o, j);
	check(!munmap(address(o, i), (size_t)(EACH - i) * PAGE), "munmap");
	for (unsigned j = i; j < EACH; j++) {
		o->holds[j] = NOTHING;
		o->locked[j] = false;
		changed(o, j);
	}
}

static void move(struct owner *o, unsigned from, unsigned to)
{
	if (o->holds[from] == NOTHING)
		return;
	changing(o, from);
	changing(o, to);
	check(mremap(address(o, from), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, address(o, to)) !=
		MAP_FAILED, "mremap");
	o->holds[to] = o->holds[from];
	o->locked[to] = o->locked[from];
	o->holds[from] = NOTHING;
	o->locked[from] = false;
	changed(o, from);
	changed(o, to);
}

static void protect(struct owner *o, unsigned i)
{
	if (o->holds[i] == NOTHING)
		return;
	changing(o, i);
	check(!mprotect(address(o, i), PAGE, o->locked[i] ? PROT_READ | PROT_WRITE : PROT_NONE), "mprotect");
	o->locked[i] = !o->locked[i];
	changed(o, i);
}

/* A hole in the memory: this the kernel keeps right, since B is another mapping of it. */
static void discard(struct owner *o, unsigned i)
{
	if (o->holds[i] == NOTHING || o->locked[i])
		return;
	changing(o, i);
	check(!madvise(address(o, i), PAGE, MADV_REMOVE), "madvise");
	o->holds[i] = 0;
	changed(o, i);
}

/* Some times at once: what is looked up in between is of no use for long. */
static void replace(struct owner *o, unsigned i)
{
	for (int n = 1 + rand_r(&o->seed) % 4; n; n--)
		map(o, i);
}

static atomic_ulong rounds;
static time_t began;
static bool with;

/* Without a notifier not before something went wrong: this is to be seen. */
static bool enough(void)
{
	return time(NULL) - began > ENOUGH && (with || shared->stale);
}

static void *program(void *arg)
{
	struct owner *o = arg;

	for (int round = 0; round < ROUNDS && !enough(); round++) {
		unsigned i = (unsigned)rand_r(&o->seed) % EACH;

		switch (rand_r(&o->seed) % 10) {
		case 0: unmap(o, i); break;
		case 1:
		case 2: move(o, i, (i + 1) % EACH); break;
		case 3:
		case 4: protect(o, i); break;
		case 5: discard(o, i); break;
		default: replace(o, i);
		}
		let_it_look();
		rounds++;
	}
	return NULL;
}

/* ---- */

static int skip(const char *what)
{
	printf("1..0 # SKIP mmu_kvm: %s: %s\n", what, strerror(errno));
	return SKIP;
}

/* A machine with one processor; 0, or SKIP. */
static int make_machine(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), size;
	struct kvm_sregs s;
	char *low;

	if (kvm < 0)
		return skip("/dev/kvm");
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return skip("KVM_GET_API_VERSION");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return skip("KVM_CREATE_VM");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return skip("KVM_CREATE_VCPU");
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	check(size > 0, "KVM_GET_VCPU_MMAP_SIZE");
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	check(run != MAP_FAILED, "mmap of the processor");
	low = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(low != MAP_FAILED, "mmap");
	shared = (struct shared *)low;
	memcpy(low + CODE, guest, (size_t)(guest_end - guest));
	set_slot(0, 0, low, 2 * PAGE);
	check(!ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.cs.base = s.cs.selector = s.ds.base = s.ds.selector = 0;
	s.es.base = BANK;
	s.es.selector = BANK / 16;
	check(!ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	close(kvm);
	return 0;
}

static void reset_machine(void)
{
	struct kvm_regs r = { .rip = CODE, .rflags = 2 };
	struct kvm_mp_state running = { .mp_state = KVM_MP_STATE_RUNNABLE };

	check(!ioctl(vcpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
	ioctl(vcpu, KVM_SET_MP_STATE, &running);
	memset(shared, 0, sizeof *shared);
	release(&notifier); /* no slot of the run before */
	mmu.active = 0;
	faults = waited = again = 0;
}

/* How many looks were stale; -1: nobody could listen, or the guest did not look. */
static long runs(bool notified)
{
	static struct owner owner[THREADS];
	pthread_t thread[THREADS], vcpu_thread;
	int r = notified ? shunt_mmu_notifier_register(&notifier) : 0;

	with = notified;
	rounds = 0;
	began = time(NULL);
	if (r) {
		fprintf(stderr, "mmu_kvm: shunt_mmu_notifier_register: %s\n", strerror(-r));
		return -1;
	}
	for (unsigned t = 0; t < THREADS; t++) {
		owner[t] = (struct owner){ .first = t * EACH, .seed = t + 1 };
		for (unsigned i = 0; i < EACH; i++)
			map(&owner[t], i);
	}
	check(!pthread_create(&vcpu_thread, NULL, processor, NULL), "pthread_create");
	for (unsigned t = 0; t < THREADS; t++)
		check(!pthread_create(&thread[t], NULL, program, &owner[t]), "pthread_create");
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(thread[t], NULL);
	shared->stop = 1;
	pthread_join(vcpu_thread, NULL);
	if (with)
		shunt_mmu_notifier_unregister(&notifier);
	printf("%s: %lu rounds, %u looks of the guest, %lu faults (%lu waited for a change, %lu tries in vain): "
		"%u stale\n", with ? "with a notifier" : "without a notifier", rounds, shared->looks,
		faults, waited, again, shared->stale);
	fflush(stdout);
	return shared->looks ? (long)shared->stale : -1;
}

int main(int argc, char **argv)
{
	bool only_with = argc > 1 && !strcmp(argv[1], "--with");
	bool only_without = argc > 1 && !strcmp(argv[1], "--without");
	bool good = true;
	int r = make_machine();

	if (r)
		return r;
	/* Far from where the kernel puts mappings by itself: what is unmapped there stays so. */
	a = mmap((void *)0x200000000000, (size_t)BANKS * PAGE, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	check(a != MAP_FAILED, "mmap");
	if (!only_with) {
		reset_machine();
		good &= runs(false) > 0;
	}
	if (!only_without) {
		reset_machine();
		good &= runs(true) == 0;
	}
	if (!good)
		fprintf(stderr, "mmu_kvm: that is not what should have come out\n");
	return !good;
}
