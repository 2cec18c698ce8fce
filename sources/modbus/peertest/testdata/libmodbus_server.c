/*
 * A Modbus server on libmodbus with fixed values of every type and byte order.
 *
 *     libmodbus_server tcp        listens on a free port of 127.0.0.1
 *     libmodbus_server rtu PATH   serves unit 1 at 115200 8N1
 *
 * It prints "ready PORT" (0 for rtu) and serves one client after the other
 * until it is killed. The values stand in the holding registers from 1000 * k
 * on, k being 0 for ABCD, 1 for CDAB, 2 for BADC and 3 for DCBA, and in the
 * input registers likewise. Coils and discrete inputs 0 to 9 are 1 where the
 * address is divisible by 3.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ABCD, CDAB, BADC, DCBA };

static uint16_t swapped(uint16_t word) { return (uint16_t)(word << 8 | word >> 8); }

/* put stores the lowest `words` words of bits in an order. */
static void put(uint16_t *at, uint64_t bits, int words, int order)
{
    for (int i = 0; i < words; i++) {
        uint16_t word = (uint16_t)(bits >> (16 * (words - 1 - i)));
        int to = (order == CDAB || order == DCBA) ? words - 1 - i : i;
        at[to] = (order == BADC || order == DCBA) ? swapped(word) : word;
    }
}

static void put_text(uint16_t *at, const char *text, int words, int order)
{
    char padded[64] = {0};
    strncpy(padded, text, sizeof padded - 1);
    for (int i = 0; i < words; i++) {
        uint16_t word = (uint16_t)((uint8_t)padded[2 * i] << 8 | (uint8_t)padded[2 * i + 1]);
        at[i] = (order == BADC || order == DCBA) ? swapped(word) : word;
    }
}

static void fill(uint16_t *at, int order)
{
    float f = -231.4375f;
    double d = 1234567.890625;
    int32_t i = -1234567890;
    int64_t l = INT64_C(-1234567890123456789);
    uint32_t f_bits;
    uint64_t d_bits;
    memcpy(&f_bits, &f, sizeof f_bits);
    memcpy(&d_bits, &d, sizeof d_bits);

    put(at + 0, (uint16_t)(int16_t)-12345, 1, order);
    put(at + 1, 54321, 1, order);
    put(at + 2, (uint32_t)i, 2, order);
    put(at + 4, 3456789012u, 2, order);
    put(at + 6, f_bits, 2, order);
    put(at + 8, (uint64_t)l, 4, order);
    put(at + 12, UINT64_C(12345678901234567890), 4, order);
    put(at + 16, d_bits, 4, order);
    put(at + 20, 0x9876, 1, order);
    put(at + 21, 0x12345678, 2, order);
    put(at + 23, 0xA50F, 1, order);
    put(at + 24, 0xA50F3CC3, 2, order);
    put(at + 26, (uint16_t)(int16_t)-3, 1, order);
    put(at + 27, 1, 1, order);
    put_text(at + 30, "Eastron SDM", 6, order);
    if (order == ABCD) {
        /* libmodbus' own idea of the standard order of integers */
        MODBUS_SET_INT32_TO_INT16(at, 2, i);
        MODBUS_SET_INT64_TO_INT16(at, 8, l);
    }
}

static modbus_t *open_server(int argc, char **argv, int *listener, int *port)
{
    modbus_t *ctx = NULL;
    *listener = -1;
    *port = 0;
    if (argc == 2 && strcmp(argv[1], "tcp") == 0) {
        struct sockaddr_in address;
        socklen_t length = sizeof address;
        ctx = modbus_new_tcp("127.0.0.1", 0);
        if (ctx == NULL || (*listener = modbus_tcp_listen(ctx, 4)) < 0 ||
            getsockname(*listener, (struct sockaddr *)&address, &length) < 0)
            return NULL;
        *port = ntohs(address.sin_port);
    } else if (argc == 3 && strcmp(argv[1], "rtu") == 0) {
        ctx = modbus_new_rtu(argv[2], 115200, 'N', 8, 1);
        if (ctx == NULL || modbus_set_slave(ctx, 1) < 0 || modbus_connect(ctx) < 0)
            return NULL;
    }
    return ctx;
}

static void serve(modbus_t *ctx, modbus_mapping_t *map, int tcp)
{
    uint8_t request[MODBUS_MAX_ADU_LENGTH];
    for (;;) {
        int n = modbus_receive(ctx, request);
        if (n > 0)
            modbus_reply(ctx, request, n, map);
        else if (n < 0 && tcp)
            return;
    }
}

int main(int argc, char **argv)
{
    int listener, port;
    modbus_t *ctx = open_server(argc, argv, &listener, &port);
    modbus_mapping_t *map = modbus_mapping_new(10, 10, 4000, 4000);
    if (ctx == NULL || map == NULL) {
        fprintf(stderr, "open server: %s\n", modbus_strerror(errno));
        return 1;
    }
    for (int order = ABCD; order <= DCBA; order++) {
        fill(map->tab_registers + 1000 * order, order);
        fill(map->tab_input_registers + 1000 * order, order);
    }
    for (int i = 0; i < 10; i++)
        map->tab_bits[i] = map->tab_input_bits[i] = i % 3 == 0;
    printf("ready %d\n", port);
    fflush(stdout);
    for (;;) {
        if (listener >= 0 && modbus_tcp_accept(ctx, &listener) < 0)
            return 1;
        serve(ctx, map, listener >= 0);
        modbus_close(ctx);
    }
}
