/* A small Lisp: reader, evaluator with closures, mark-and-sweep collector over a small heap; calls through pointers,
   deep recursion, tagged words. */
#include "runtime.h"

enum { NUMBER, SYMBOL, PAIR, NATIVE, CLOSURE, FREE };
struct cell {
    u8 kind, mark;
    union {
        int number;
        u16 name;
        struct { u16 head, tail; } pair;
        struct { u16 code, scope; } closure;
    } u;
};
#define CELLS 3000
#define NIL 0
static struct cell heap[CELLS];
static u16 free_list, roots[900], root_count, globals;
static char names[800];
static u16 names_end;
static int collections;

static void mark(u16 c)
{
    while (c != NIL && !heap[c].mark) {
        heap[c].mark = 1;
        if (heap[c].kind != PAIR && heap[c].kind != CLOSURE)
            return;
        mark(heap[c].u.pair.head);
        c = heap[c].u.pair.tail;
    }
}

static void collect(void)
{
    collections++;
    mark(globals);
    for (u16 i = 0; i < root_count; i++)
        mark(roots[i]);
    free_list = NIL;
    for (u16 c = CELLS - 1; c > 0; c--) {
        if (!heap[c].mark) {
            heap[c].kind = FREE;
            heap[c].u.pair.tail = free_list;
            free_list = c;
        }
        heap[c].mark = 0;
    }
}

static u16 keep(u16 c)
{
    return roots[root_count++] = c;
}

static u16 make(u8 kind, u16 head, u16 tail)
{
    if (free_list == NIL) {
        keep(head);
        keep(tail);
        collect();
        root_count -= 2;
    }
    u16 c = free_list;
    free_list = heap[c].u.pair.tail;
    heap[c].kind = kind;
    heap[c].u.pair.head = head;
    heap[c].u.pair.tail = tail;
    return c;
}

static u16 number(int n)
{
    u16 c = make(NUMBER, NIL, NIL);
    heap[c].u.number = n;
    return c;
}

static u16 symbol(const char *text, int size)
{
    u16 at = 0;
    while (at < names_end) {
        int i = 0;
        while (i < size && names[at + i] == text[i])
            i++;
        if (i == size && !names[at + i])
            break;
        while (names[at++])
            ;
    }
    if (at == names_end) {
        for (int i = 0; i < size; i++)
            names[names_end++] = text[i];
        names[names_end++] = 0;
    }
    u16 c = make(SYMBOL, NIL, NIL);
    heap[c].u.name = at;
    return c;
}

static u16 head(u16 c) { return heap[c].u.pair.head; }
static u16 tail(u16 c) { return heap[c].u.pair.tail; }
static int integer(u16 c) { return heap[c].u.number; }

static const char *input;

static u16 read(void)
{
    while (*input == ' ' || *input == '\n')
        input++;
    u16 base = root_count;
    if (*input == '(') {
        input++;
        u16 items[40];
        int count = 0;
        for (;;) {
            while (*input == ' ' || *input == '\n')
                input++;
            if (*input == ')')
                break;
            items[count] = keep(read());
            count++;
        }
        input++;
        u16 list = NIL;
        while (count)
            list = make(PAIR, items[--count], list);
        root_count = base;
        return list;
    }
    const char *start = input;
    int value = 0, numeric = 1;
    while (*input && *input != ' ' && *input != ')' && *input != '(' && *input != '\n') {
        numeric &= *input >= '0' && *input <= '9';
        value = value * 10 + (*input++ - '0');
    }
    return numeric ? number(value) : symbol(start, (int)(input - start));
}

static void print(u16 c)
{
    if (c == NIL)
        put_text("()");
    else if (heap[c].kind == NUMBER)
        put_number(integer(c));
    else if (heap[c].kind == SYMBOL)
        put_text(names + heap[c].u.name);
    else if (heap[c].kind == PAIR) {
        put_byte('(');
        for (; c != NIL; c = tail(c)) {
            print(head(c));
            if (tail(c) != NIL)
                put_byte(' ');
        }
        put_byte(')');
    } else
        put_text("#<procedure>");
}

typedef u16 native(u16 a, u16 b);
static u16 truth(int t) { return t ? number(1) : NIL; }
static u16 n_add(u16 a, u16 b) { return number(integer(a) + integer(b)); }
static u16 n_sub(u16 a, u16 b) { return number(integer(a) - integer(b)); }
static u16 n_mul(u16 a, u16 b) { return number(integer(a) * integer(b)); }
static u16 n_div(u16 a, u16 b) { return number(integer(a) / integer(b)); }
static u16 n_mod(u16 a, u16 b) { return number(integer(a) % integer(b)); }
static u16 n_less(u16 a, u16 b) { return truth(integer(a) < integer(b)); }
static u16 n_same(u16 a, u16 b) { return truth(integer(a) == integer(b)); }
static u16 n_cons(u16 a, u16 b) { return make(PAIR, a, b); }
static u16 n_head(u16 a, u16 b) { (void)b; return head(a); }
static u16 n_tail(u16 a, u16 b) { (void)b; return tail(a); }
static u16 n_null(u16 a, u16 b) { (void)b; return truth(a == NIL); }
static native *const NATIVES[] = {n_add, n_sub, n_mul, n_div, n_mod, n_less, n_same, n_cons, n_head, n_tail, n_null};
static const char *const NATIVE_NAMES[] = {"+", "-", "*", "/", "%", "<", "=", "cons", "car", "cdr", "null"};

static int named(u16 c, const char *text)
{
    const char *name = names + heap[c].u.name;
    while (*name && *name == *text)
        name++, text++;
    return *name == *text;
}

static u16 lookup(u16 name, u16 scope)
{
    for (int pass = 0; pass < 2; pass++, scope = globals)
        for (; scope != NIL; scope = tail(scope))
            if (heap[head(head(scope))].u.name == heap[name].u.name)
                return tail(head(scope));
    return NIL;
}

static u16 eval(u16 c, u16 scope)
{
    u16 base = root_count, result = NIL;
    keep(c);
    keep(scope);
    for (;;) {
        if (c == NIL || heap[c].kind == NUMBER) {
            result = c;
            break;
        }
        if (heap[c].kind == SYMBOL) {
            result = lookup(c, scope);
            break;
        }
        u16 first = head(c), rest = tail(c);
        if (first != NIL && heap[first].kind == SYMBOL) {
            if (named(first, "quote")) {
                result = head(rest);
                break;
            }
            if (named(first, "if")) {
                u16 test = eval(head(rest), scope);
                rest = tail(rest);
                c = test != NIL ? head(rest) : head(tail(rest));
                continue;
            }
            if (named(first, "lambda")) {
                result = make(CLOSURE, rest, scope);
                break;
            }
            if (named(first, "define")) {
                u16 value = keep(eval(head(tail(rest)), scope));
                globals = make(PAIR, keep(make(PAIR, head(rest), value)), globals);
                result = head(rest);
                break;
            }
        }
        u16 procedure = keep(eval(first, scope));
        if (heap[procedure].kind == NATIVE) {
            u16 a = keep(eval(head(rest), scope));
            u16 b = tail(rest) != NIL ? keep(eval(head(tail(rest)), scope)) : NIL;
            result = NATIVES[integer(procedure)](a, b);
            break;
        }
        u16 inner = heap[procedure].u.closure.scope, slot = root_count;
        keep(inner);
        for (u16 name = head(heap[procedure].u.closure.code); name != NIL; name = tail(name), rest = tail(rest)) {
            u16 value = keep(eval(head(rest), scope));
            u16 binding = keep(make(PAIR, head(name), value));
            roots[slot] = inner = make(PAIR, binding, inner);
            root_count = (u16)(slot + 1);
        }
        c = head(tail(heap[procedure].u.closure.code));
        scope = inner;
        roots[base] = procedure;
        roots[base + 1] = scope;
        root_count = (u16)(base + 2);
    }
    root_count = base;
    return result;
}

static const char *const PROGRAM[] = {
    "(define fact (lambda (n) (if (< n 2) 1 (* n (fact (- n 1))))))", "(fact 10)",
    "(define fib (lambda (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2))))))", "(fib 15)",
    "(define map (lambda (f l) (if (null l) () (cons (f (car l)) (map f (cdr l))))))",
    "(define range (lambda (a b) (if (< a b) (cons a (range (+ a 1) b)) ())))",
    "(map (lambda (n) (* n n)) (range 0 20))",
    "(define adder (lambda (n) (lambda (m) (+ n m))))", "((adder 30) 12)",
    "(define ack (lambda (m n) (if (= m 0) (+ n 1) (if (= n 0) (ack (- m 1) 1) (ack (- m 1) (ack m (- n 1)))))))",
    "(ack 2 5)",
    "(define filter (lambda (f l) (if (null l) () (if (f (car l)) (cons (car l) (filter f (cdr l))) (filter f (cdr l))))))",
    "(filter (lambda (n) (= (% n 7) 3)) (range 0 100))",
    "(define loop (lambda (n acc) (if (= n 0) acc (loop (- n 1) (+ acc (/ (* n n) (+ n 1)))))))", "(loop 3000 0)",
    "(quote (a (b c) () 1 2))", "fact", "(define queens (lambda (n) (place n n ())))",
    "(define safe (lambda (q d l) (if (null l) 1 (if (= q (car l)) () (if (= q (+ (car l) d)) () (if (= q (- (car l) d)) ()"
    " (safe q (+ d 1) (cdr l))))))))",
    "(define try (lambda (q n k l) (if (= q 0) 0 (+ (if (safe q 1 l) (place n (- k 1) (cons q l)) 0) (try (- q 1) n k l)))))",
    "(define place (lambda (n k l) (if (= k 0) 1 (try n n k l))))", "(queens 5)",
};

void program(void)
{
    collect();
    for (u16 i = 0; i < sizeof NATIVES / sizeof *NATIVES; i++) {
        int size = 0;
        while (NATIVE_NAMES[i][size])
            size++;
        u16 value = keep(make(NATIVE, NIL, NIL));
        heap[value].u.number = i;
        u16 name = keep(symbol(NATIVE_NAMES[i], size));
        globals = make(PAIR, keep(make(PAIR, name, value)), globals);
        root_count = 0;
    }
    for (u32 i = 0; i < sizeof PROGRAM / sizeof *PROGRAM; i++) {
        input = PROGRAM[i];
        u16 form = keep(read());
        print(keep(eval(form, NIL)));
        put_byte('\n');
        root_count = 0;
    }
    put_text(collections > 3 ? "collected\n" : "never collected\n");
}
